# Ablation tables. Their rows are runs like any other, in results/<run>/ablation/<row>/, which the
# other rules make as far as the score of the CAMs; a row that changes nothing is the run itself.


localrules:
    ablation,
    ablation_q,


rule ablation:
    input:
        scores=ablation_scores("variants"),
    output:
        table="results/{run}/ablation.csv",
    log:
        "results/{run}/logs/ablation.log",
    benchmark:
        "results/{run}/benchmarks/ablation.tsv"
    wildcard_constraints:
        run=RUN_NAME,
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        code=code("wsss.evaluation.ablation"),
        entries=ablation_entries("variants"),
    shell:
        "wsss ablation-table {params.entries:q} --output {output.table:q} 2>&1 | tee {log:q}"


# The sweep of the initial q (ACR, CVPR 2023, supplementary, Table A2).
use rule ablation as ablation_q with:
    input:
        scores=ablation_scores("q"),
    output:
        table="results/{run}/ablation_q.csv",
    log:
        "results/{run}/logs/ablation_q.log",
    benchmark:
        "results/{run}/benchmarks/ablation_q.tsv"
    params:
        code=code("wsss.evaluation.ablation"),
        entries=ablation_entries("q"),
