"""Off-policy evaluation: what a policy that never ran would have got, from another policy's log.

Statistics, which know no file and no router: `estimators` turns `inputs` into one value per row,
`intervals` turns the values into an estimate with its uncertainty, and `overlap` says when the
estimate must not be printed. `reward_model` predicts rewards and which of them are observed.

Readers fill a `bandit_log` and the `logged_requests` around it: `read_database` from a daemon's
log, `read_parquet` from a file, `direct_method` from answers without propensities, and
`synthetic_log` from a simulation whose truth is known.

`target_policy` says what a frozen policy would have done in each logged row; `evaluator` estimates
one policy from that, and `evaluation` compares several. `rejection_replay` evaluates policies that
go on learning or spend a budget. `tables` prints the results and writes them as JSON.
"""
