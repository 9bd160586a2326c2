"""The whole study in one graph: data sets x methods x seeds.

`fairdiff run` starts it (and `fairdiff run --dry-run` prints it). Each data set's rules are those of
dataset.smk, under names that begin with the data set's.
"""

DATASETS = str(config.get("dataset") or "fairgenmed_simulated").split()

for own in DATASETS:
    own_ = f"{own}_"

    module:
        name:
            own
        snakefile:
            "dataset.smk"
        config:
            {**config, "dataset": own}

    use rule * from own as own_*


rule all:
    localrule: True
    default_target: True
    input:
        [getattr(rules, f"{name}_all").input for name in DATASETS],
