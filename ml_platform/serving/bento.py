"""For BentoML's own command: ``bentoml serve ml_platform.serving.bento:<service>`` serves a declared service.

The settings are read from the environment, as ever. ``ml-platform serve`` does the same without BentoML's supervisor.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """The service of that name, made when it is asked for.

    Raises:
        AttributeError: the project declares no such service.
    """
    if name.startswith("_"):
        raise AttributeError(name)
    from ml_platform.resources.profiles import Profile
    from ml_platform.serving.service import prediction_service
    from ml_platform.spec import UnknownName

    try:
        service = globals()[name] = prediction_service(Profile.from_environment(), name)
    except UnknownName as error:
        raise AttributeError(str(error)) from error
    return service
