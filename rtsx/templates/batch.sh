#!/bin/bash
{% if job.system == "slurm" %}
#SBATCH --job-name=rtsx
#SBATCH --array=0-{{ job.workers - 1 }}
#SBATCH --time={{ minutes }}
{% if job.gpus %}
#SBATCH --gpus-per-node={{ job.gpus }}
{% endif %}
{% if job.cpus is not none %}
#SBATCH --cpus-per-task={{ job.cpus }}
{% endif %}
{% if megabytes is not none %}
#SBATCH --mem={{ megabytes }}M
{% endif %}
{% if job.partition is not none %}
#SBATCH --partition={{ job.partition }}
{% endif %}
{% if job.account is not none %}
#SBATCH --account={{ job.account }}
{% endif %}
{% if job.logs is not none %}
#SBATCH --output={{ job.logs }}/rtsx-%A_%a.log
{% endif %}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
{% else %}
#PBS -N rtsx
{% if job.workers > 1 %}{# PBS takes no array of one. #}
#PBS -J 0-{{ job.workers - 1 }}
{% endif %}
#PBS -l select=1
{%- if job.cpus is not none %}:ncpus={{ job.cpus }}{% endif %}
{%- if megabytes is not none %}:mem={{ megabytes }}mb{% endif %}
{%- if job.gpus %}:ngpus={{ job.gpus }}{% endif +%}
#PBS -l walltime={{ "%02d:%02d:00" | format(minutes // 60, minutes % 60) }}
{% if job.partition %}
#PBS -q {{ job.partition }}
{% endif %}
{% if job.account %}
#PBS -A {{ job.account }}
{% endif %}
#PBS -j oe
#PBS -r y
{% if job.logs is not none %}
#PBS -o {{ job.logs }}
{% endif %}
{% endif %}
{% for option in job.options %}
#{{ "SBATCH" if job.system == "slurm" else "PBS" }} {{ option }}
{% endfor %}
{# First, because the time of the job runs already. #}
until=$(date -Iseconds -d '+{{ seconds }} seconds')
{% if job.system == "pbs" %}
cd "$PBS_O_WORKDIR"
{% endif %}
{% for line in job.setup %}
{{ line }}
{% endfor %}
{% if job.container %}apptainer exec {{ "--nv " if job.gpus }}{{ job.container | shell }} {% endif %}
rtsx campaign work {{ job.campaign | shell }}
{%- if job.year is not none %} --year {{ job.year }}{% endif %} --until "$until"
{%- if job.gpus %} --gpu {{ job.gpus }}{% endif %}
{%- if job.fetched is not none %} --from {{ job.fetched | shell }}{% endif %}
{%- if job.trust %} --trust{% endif +%}
status=$?
{% if job.system == "slurm" %}
if [ "$status" -eq {{ time_is_over }} ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
{% endif %}
exit "$status"
