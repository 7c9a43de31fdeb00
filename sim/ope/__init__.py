"""Off-policy evaluation: what a policy that never ran would have got, from another one's log.

`inputs` holds what an estimator reads, `estimators` turns it into one value per row, `intervals`
turns values into an estimate with an interval, `support` says when none of that may be believed.
Only these four are statistics; `daemon` and `files` read logs, `targets` scores policies on them,
`sequence` replays those that learn or hold a budget, `judge` puts all of it together.
"""
