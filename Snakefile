"""The whole study in one graph: data sets x methods x seeds.

`fairdiff run` starts it (and `fairdiff run --dry-run` prints it). What a notebook waits for and
makes stands in fairdiff_lib/settings/notebooks.py; here each job becomes a rule, and what people
read and a record become its outputs (fairdiff_lib/run/jobs.py).
"""

from fairdiff_lib.run.graph import GraphRun, urgency

RUN = GraphRun.of(config)
APART = bool(config.get("apart"))
GRAPHS = RUN.jobs(int(config.get("cores", 1)), APART, int(config.get("gpus", 0)))


def asked(own, job):
    """What a queue is asked for, beside threads: minutes, memory, GPUs. Nothing on one machine."""
    wanted = {"runtime": job.minutes} if APART else {}
    if APART and job.network:
        wanted |= {"mem_mb": own.memory_mb, "gpu": own.gpus}
    return {name: value for name, value in wanted.items() if value}


rule all:
    localrule: True
    default_target: True
    input:
        [own.targets() for own in GRAPHS],


for own in GRAPHS:

    URGENT = urgency(own)

    # What will be tested, and by which rule: written before there is a test image. A protocol of
    # the same words stays as it was (so Snakemake mustn't remove it) and undoes no run (ancient);
    # other words come with other settings, which do.
    rule:
        name:
            f"{own.dataset}_protocol"
        localrule: True
        input:
            own.protocol.needs,
        output:
            update(own.protocol.record),
        params:
            settings=own.study.places.records.name,
        priority: max(URGENT.values())  # no image is drawn before
        shell:
            RUN.command

    for job in own.notebooks:

        # On a cluster a run's training goes out with its images as one submission (group): less
        # time in the queue. The benchmark is what `fairdiff run --dry-run` expects next time.
        rule:
            name:
                f"{own.dataset}_{job.name}"
            group:
                "run" if job.entry.per_run else None
            input:
                job.needs,
                protocol=ancient([own.protocol.record] if job.entry.declared else []),
            output:
                record=job.record,
                read=job.makes,
            log:
                notebook=job.executed,
            benchmark:
                f"{job.record}.tsv"
            params:
                settings=own.changes(job),
            threads: job.threads
            priority: URGENT[job.name]
            resources:
                **asked(own, job),
            shell:
                RUN.command

    for job in own.fits:

        rule:
            name:
                f"{own.dataset}_{job.name}"
            input:
                job.needs,
            output:
                record=job.record,
            benchmark:
                f"{job.record}.tsv"
            params:
                settings=own.changes(job),
            threads: job.threads
            priority: URGENT[job.name]
            resources:
                **asked(own, job),
            shell:
                RUN.command

    for job in own.arms:

        # Its files may be committed, so they are kept whatever happens (update), and a run that is
        # there is not made again.
        rule:
            name:
                f"{own.dataset}_{job.name}"
            input:
                job.needs,
            output:
                record=update(job.record),
                beside=[update(name) for name in job.makes],
            benchmark:
                f"{own.record(job.name)}.tsv"
            threads: job.threads
            priority: URGENT[job.name]
            resources:
                **asked(own, job),
            shell:
                RUN.command
