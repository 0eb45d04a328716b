"""What the presets of keras and fastai share: their name for the metric."""

from typing import Any

from pydantic import model_validator

from pacesetter_service.core.controllers.base import NamedController


class Monitored(NamedController):
    """A rule whose library calls its metric `monitor`; that name is accepted, too."""

    @model_validator(mode="before")
    @classmethod
    def _by_the_name_of_the_library(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if isinstance(data, dict) and "monitor" in data and "metric" not in data:
            return {"metric" if name == "monitor" else name: data[name] for name in data}
        return data
