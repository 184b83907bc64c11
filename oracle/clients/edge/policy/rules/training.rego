# Before training: may this job touch this dataset at all?
#
# The input's form is checked before (input.py), since a rule is silent about a field that is not
# there. A denial carries numbers and names of this product, never one that a bundle chose.
package rapha.training

import data.rapha.shapes

import rego.v1

default allow := false

allow if {
	input.gate == "training"
	count(deny) == 0
}

decision := {"allow": allow, "deny": deny}

deny contains {"rule": "framework", "framework": input.job.framework} if {
	not input.job.framework in input.hospital.frameworks
}

deny contains {"rule": "bundle"} if {
	not input.hospital.bundles.any
	not input.job.bundle_digest in input.hospital.bundles.digests
}

deny contains {"rule": "image"} if {
	not input.hospital.images.any
	not input.job.image_digest in input.hospital.images.digests
}

deny contains {"rule": "dataset"} if {
	not input.dataset.digest in input.hospital.datasets
}

deny contains {"rule": "dataset_agreed"} if {
	input.job.dataset_digest != input.dataset.digest
}

deny contains {"rule": "min_records", "have": input.dataset.records, "need": input.policy.min_records} if {
	input.dataset.records < input.policy.min_records
}

deny contains {"rule": "min_cohort", "have": input.dataset.records, "need": input.hospital.min_cohort} if {
	input.dataset.records < input.hospital.min_cohort
}

deny contains {"rule": "consent_purpose"} if {
	not input.job.purpose in input.dataset.consent.purposes
}

deny contains {"rule": "consent_until", "have": input.job.deadline, "need": input.dataset.consent.until} if {
	input.job.deadline > input.dataset.consent.until
}

deny contains {"rule": "retention", "have": input.job.deadline, "need": input.dataset.retention_until} if {
	input.job.deadline > input.dataset.retention_until
}

deny contains {"rule": "epochs", "have": input.job.epochs, "need": input.hospital.limits.epochs} if {
	input.job.epochs > input.hospital.limits.epochs
}

deny contains {"rule": "wall_seconds", "have": input.job.resources.wall_seconds, "need": input.hospital.limits.wall_seconds} if {
	input.job.resources.wall_seconds > input.hospital.limits.wall_seconds
}

deny contains {"rule": "cpu_seconds", "have": input.job.resources.cpu_seconds, "need": input.hospital.limits.cpu_seconds} if {
	input.job.resources.cpu_seconds > input.hospital.limits.cpu_seconds
}

deny contains {"rule": "memory_bytes", "have": input.job.resources.memory_bytes, "need": input.hospital.limits.memory_bytes} if {
	input.job.resources.memory_bytes > input.hospital.limits.memory_bytes
}

deny contains {"rule": "gpus", "have": input.job.resources.gpus, "need": input.hospital.limits.gpus} if {
	input.job.resources.gpus > input.hospital.limits.gpus
}

deny contains {"rule": "output_limit", "have": input.policy.max_output_bytes, "need": input.hospital.limits.output_bytes} if {
	input.policy.max_output_bytes > input.hospital.limits.output_bytes
}

deny contains {"rule": "network", "network": input.job.network} if {
	input.job.network != "none"
}

deny contains {"rule": "outputs_declared"} if {
	not input.job.outputs.declared
}

declared := input.job.outputs.tensors

deny contains {"rule": "declared_count", "have": count(declared), "need": input.policy.max_tensors} if {
	count(declared) > input.policy.max_tensors
}

deny contains {"rule": "declared_none"} if {
	input.job.outputs.declared
	count(declared) == 0
}

deny contains {"rule": "declared_dtype", "dtype": tensor.dtype} if {
	some tensor in declared
	not tensor.dtype in input.policy.allowed_dtypes
}

deny contains {"rule": "declared_bytes", "have": total, "need": input.policy.max_output_bytes} if {
	sizes := [size |
		some tensor in declared
		size := product(tensor.shape) * shapes.bytes_of[tensor.dtype]
	]
	total := sum(sizes)
	total > input.policy.max_output_bytes
}

deny contains {"rule": "declared_shape", "have": found} if {
	found := count([1 |
		some tensor in declared
		shapes.record_shaped(tensor.shape, input.dataset)
	])
	found > 0
}

deny contains {"rule": "privacy_accountant"} if {
	input.privacy.demanded
	not input.privacy.accounted
}

deny contains {"rule": "privacy_metrics", "have": count(input.policy.allowed_metrics)} if {
	input.privacy.demanded
	count(input.policy.allowed_metrics) > 0
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
