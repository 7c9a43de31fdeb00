"""Off-policy evaluation: what a policy that never ran would have got, from another policy's log.

Statistics, which read no file and call no router: `estimators` turns `inputs` into one value per
row, `intervals` turns the values into an estimate with its uncertainty, and `overlap` says when the
estimate must not be printed. `reward_model` predicts rewards and the chance that one is observed.

Logs: `bandit_log` holds decisions and outcomes, `logged_requests` what a policy needs to decide
them again. `read_database` reads both from a daemon, `read_parquet` from a file, and
`synthetic_log` simulates them.

Policies: `target_policy` computes what a frozen policy would have done in each row, `evaluator`
evaluates that, and `evaluation` compares several policies. `rejection_replay` evaluates a policy
that goes on learning or spends a budget, `direct_method` any policy on a log without propensities.
`tables` prints the results and turns them into JSON.
"""
