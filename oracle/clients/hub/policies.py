"""Output policies to choose from, and what a policy means in words. Pure."""

from oracle.clients.edge.policy.digest import base_rules, policy_digest
from settlement.hub.market import PolicyExplanation, PolicyLibrary, PolicyTemplate
from settlement.hub.messages import OutputPolicy

MEBIBYTE = 2**20

_TEMPLATES = (
    (
        "small-model",
        "A small model and its learning curve",
        "For classical models and small networks on tabular data: up to 32 tensors of single"
        " precision in 4 MiB, with loss and held-out accuracy per epoch.",
        OutputPolicy(
            min_records=100,
            max_output_bytes=4 * MEBIBYTE,
            max_tensors=32,
            allowed_dtypes=("F32",),
            allowed_metrics=("loss", "holdout_accuracy"),
        ),
    ),
    (
        "deep-network",
        "A deep network's weights",
        "For networks on images, signals or text: up to 2,048 tensors of single or half precision"
        " in 240 MiB, resting on at least 1,000 records.",
        OutputPolicy(
            min_records=1_000,
            max_output_bytes=240 * MEBIBYTE,
            max_tensors=2_048,
            allowed_dtypes=("F32", "F16", "BF16", "I64"),
            allowed_metrics=("loss", "holdout_accuracy"),
        ),
    ),
    (
        "adapter",
        "A low-rank adapter of a public model",
        "For fine-tuning a public base model: only the adapter leaves, up to 512 tensors in 64 MiB,"
        " resting on at least 500 records.",
        OutputPolicy(
            min_records=500,
            max_output_bytes=64 * MEBIBYTE,
            max_tensors=512,
            allowed_dtypes=("F32", "F16", "BF16"),
            allowed_metrics=("loss", "holdout_accuracy"),
        ),
    ),
    (
        "weights-without-metrics",
        "Weights, and not one number besides",
        "For hospitals that release no metric: up to 512 tensors in 64 MiB. The held-out accuracy"
        " stays at the hospital.",
        OutputPolicy(
            min_records=500,
            max_output_bytes=64 * MEBIBYTE,
            max_tensors=512,
            allowed_dtypes=("F32",),
            allowed_metrics=(),
        ),
    ),
)


def library() -> PolicyLibrary:
    """Every template with its meaning and digest, and the rules that each node enforces."""
    return PolicyLibrary(
        policies=tuple(
            PolicyTemplate(
                name=name,
                title=title,
                explanation=explanation,
                policy=policy,
                digest=policy_digest(policy),
            )
            for name, title, explanation, policy in _TEMPLATES
        ),
        rules={name: text.decode() for name, text in base_rules().items()},
    )


def explain(policy: OutputPolicy) -> PolicyExplanation:
    """What a policy lets out, a sentence for each of its limits."""
    metrics = ", ".join(policy.allowed_metrics)
    dtypes = ", ".join(policy.allowed_dtypes)
    return PolicyExplanation(
        sentences=(
            f"Nothing leaves unless it rests on at least {policy.min_records:,} different records.",
            f"The weights have at most {policy.max_output_bytes:,} bytes.",
            f"They are at most {policy.max_tensors:,} tensors, of {dtypes}.",
            f"Of metrics, only these leave: {metrics}." if metrics else "No metric leaves.",
            "The hospital's own rules come on top, and can only forbid more.",
        ),
        digest=policy_digest(policy),
    )
