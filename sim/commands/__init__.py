"""Commands: a module for each, whose function `command` lists the options; and what they share.

A command reads its options, plans, runs and shows. It must never compute a result itself.
"""
