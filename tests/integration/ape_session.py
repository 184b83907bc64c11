"""Run by `test_ape.py` in a process of its own: an account of ape's opens a job through the SDK."""

import json
import sys
from pathlib import Path

import ape
from eth_utils import keccak

from settlement.client import Settlement
from settlement.contracts import authorization_signer
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.eip712 import job_id
from settlement.models import JobTerms, Work
from settlement.signer import ApeSigner

with ape.networks.parse_network_choice("ethereum:local:foundry") as provider:
    w3 = provider.web3
    signer = ApeSigner(ape.accounts.test_accounts[0])
    parameters = DeploymentParameters.model_validate_json(Path(sys.argv[1]).read_bytes())
    deployment = deploy(w3, signer, deploy_test_usdc(w3, signer), parameters)
    settlement = Settlement(w3, deployment, signer)
    account, hardware = signer.address, keccak(text="hardware")
    register = settlement.nodes.functions.register_node(account, account, account, hardware)
    settlement.transact(register)
    settlement.transact(settlement.usdc.functions.mint(account, 10_000_000))
    terms = JobTerms(
        payer=account,
        node_id=1,
        price_per_record=1,
        price_per_epoch=1,
        budget=5_000_000,
        deadline=settlement.now() + 3600,
        work=Work(
            model_digest=hardware,
            dataset_digest=hardware,
            policy_digest=hardware,
            result_key_digest=hardware,
        ),
        salt=hardware,
    )
    authorization = settlement.authorize(terms)
    assert authorization_signer(deployment, terms, authorization) == account
    settlement.open_job_with_authorization(terms, authorization)
    job = settlement.job(job_id(terms, deployment.vault_domain))
    print(json.dumps({"state": job.state.name, "funded": job.funded}))
