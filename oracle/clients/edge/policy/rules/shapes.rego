# What the two gates know about tensors.
package rapha.shapes

import rego.v1

bytes_of := {
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
	"I16": 2, "U16": 2, "F16": 2, "BF16": 2,
	"I32": 4, "U32": 4, "F32": 4,
	"I64": 8, "U64": 8, "F64": 8,
}

# A tensor that has one entry per record, along any axis.
record_shaped(shape, dataset) if {
	some size in shape
	size in dataset.partitions
}

# Or one that holds as many numbers as the records do, flattened: without and with the label.
record_shaped(shape, dataset) if {
	some records in dataset.partitions
	product(shape) == records * dataset.columns
}

record_shaped(shape, dataset) if {
	some records in dataset.partitions
	product(shape) == records * (dataset.columns + 1)
}
