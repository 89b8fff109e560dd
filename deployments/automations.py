"""What the Prefect server does by itself: a new version of a corpus leads to a retraining."""

from __future__ import annotations

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

from tasks.corpus_history import BATCH_INGESTED

RETRAIN_ON_BATCH = "capo: retrain when a batch was taken in"

_CONFIG_OF_EVENT = {
    "config": {
        "__prefect_kind": "json",
        "value": {"__prefect_kind": "jinja", "template": "{{ event.payload.config | tojson }}"},
    }
}


def automate_retraining(client: SyncPrefectClient) -> None:
    """Create or update the automation that runs `retrain` with the configuration that the event carries."""
    deployment = client.read_deployment_by_name("retrain/retrain")
    automation = Automation(
        name=RETRAIN_ON_BATCH,
        description="Trains whom the batch changed, evaluates, registers and decides on champions.",
        trigger=EventTrigger(expect={BATCH_INGESTED}, posture=Posture.Reactive, threshold=1),
        actions=[RunDeployment(source="selected", deployment_id=deployment.id, parameters=_CONFIG_OF_EVENT)],
    )
    existing = client.read_automations_by_name(RETRAIN_ON_BATCH)
    if existing:
        automation.id = existing[0].id
        automation.enabled = existing[0].enabled
        automation.update()
    else:
        automation.create()
