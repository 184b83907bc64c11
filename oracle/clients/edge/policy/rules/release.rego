# Before release: may this leave the hospital?
#
# Stage "final" is the result; stage "progress" is the metrics that a running job shows, which leave
# just as surely. Tensors are named by the bundle's code, so a denial tells how many, never which.
package rapha.release

import data.rapha.shapes

import rego.v1

default allow := false

allow if {
	input.gate == "release"
	count(deny) == 0
}

decision := {"allow": allow, "deny": deny}

tensors := input.output.tensors

metrics := input.output.metrics

deny contains {"rule": "min_records", "have": input.output.records, "need": input.policy.min_records} if {
	input.output.records < input.policy.min_records
}

deny contains {"rule": "min_cohort", "have": input.output.records, "need": input.hospital.min_cohort} if {
	input.output.records < input.hospital.min_cohort
}

deny contains {"rule": "max_output_bytes", "have": input.output.bytes, "need": input.policy.max_output_bytes} if {
	input.output.bytes > input.policy.max_output_bytes
}

deny contains {"rule": "well_formed"} if {
	not input.output.well_formed
}

deny contains {"rule": "no_tensors"} if {
	input.stage == "final"
	input.output.well_formed
	count(tensors) == 0
}

deny contains {"rule": "early_tensors", "have": count(tensors)} if {
	input.stage == "progress"
	count(tensors) > 0
}

deny contains {"rule": "max_tensors", "have": count(tensors), "need": input.policy.max_tensors} if {
	count(tensors) > input.policy.max_tensors
}

declared := {tensor.name: tensor | some tensor in input.job.outputs.tensors}

deny contains {"rule": "undeclared_tensors", "have": found} if {
	found := count([1 |
		some tensor in tensors
		not declared[tensor.name]
	])
	found > 0
}

deny contains {"rule": "other_form", "have": found} if {
	found := count([1 |
		some tensor in tensors
		declared[tensor.name] != tensor
	])
	found > 0
}

deny contains {"rule": "allowed_dtypes", "dtype": tensor.dtype} if {
	some tensor in tensors
	not tensor.dtype in input.policy.allowed_dtypes
}

deny contains {"rule": "record_shape", "have": found} if {
	found := count([1 |
		some tensor in tensors
		shapes.record_shaped(tensor.shape, input.dataset)
	])
	found > 0
}

deny contains {"rule": "allowed_metrics", "have": found} if {
	found := count([1 |
		some metric in metrics
		not metric.name in input.policy.allowed_metrics
	])
	found > 0
}

deny contains {"rule": "metric_length", "have": found, "need": input.job.epochs} if {
	found := count([1 |
		some metric in metrics
		metric.values > input.job.epochs
	])
	found > 0
}

deny contains {"rule": "rows_in_metrics"} if {
	input.output.rows_in_metrics
}

deny contains {"rule": "privacy_accountant"} if {
	input.privacy.demanded
	not input.privacy.accounted
}

deny contains {"rule": "privacy_metrics", "have": count(metrics)} if {
	input.privacy.demanded
	count(metrics) > 0
}

deny contains {"rule": "privacy_epsilon", "have": total, "need": input.privacy.budget_epsilon} if {
	input.privacy.demanded
	total := input.privacy.spent_epsilon + input.privacy.job_epsilon
	total > input.privacy.budget_epsilon
}

deny contains {"rule": "privacy_delta", "have": total, "need": input.privacy.budget_delta} if {
	input.privacy.demanded
	total := input.privacy.spent_delta + input.privacy.job_delta
	total > input.privacy.budget_delta
}
