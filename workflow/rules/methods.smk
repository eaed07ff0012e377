# Methods side by side: `methods.csv`, what a run's `methods:` names. Each row of each seed is a run
# like any other, in results/<run>/methods/<row>.seed-<n>/, which the other rules make as far as the
# comparison goes; one that changes nothing is the run that it is.


localrules:
    methods_table,


rule methods_table:
    input:
        rows=lambda wildcards: list(method_scores(wildcards).values()),
    output:
        **captioned(outputs("methods_table"), "plot", "methods"),
    log:
        log_of("methods_table"),
    benchmark:
        benchmark_of("methods_table")
    wildcard_constraints:
        run=RUN_NAME,
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("methods_table", mem_mb=1000, runtime=10),
    params:
        **params("methods_table", method_options),
    shell:
        COMMAND
