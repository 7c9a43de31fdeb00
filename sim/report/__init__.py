"""Report: a run as tables on the terminal, as figures and as one page; a data set described.

Nothing here plays a policy. Figures and page need the extra `report`; tables do not.
"""
