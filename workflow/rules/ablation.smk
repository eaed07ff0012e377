# Ablation tables: `ablation.csv`, and `ablation_q.csv` with the sweep of the initial q (ACR, CVPR
# 2023, supplementary, Table A2). Their rows are runs like any other, in
# results/<run>/ablation/<row>/, which the other rules make as far as the score of the CAMs; a row
# that changes nothing is the run itself.


localrules:
    ablation_table,


rule ablation_table:
    input:
        rows=ablation_scores,
    output:
        **outputs("ablation_table"),
    log:
        log_of("ablation_table_{table}"),
    benchmark:
        benchmark_of("ablation_table_{table}")
    wildcard_constraints:
        run=RUN_NAME,
        table="ablation(_q)?",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("ablation_table", mem_mb=1000, runtime=10),
    params:
        **params("ablation_table", ablation_options),
    shell:
        COMMAND
