"""The project's feature views as Feast objects; the one place where the vocabularies meet."""

from datetime import timedelta
from typing import Any

from ml_platform.features.windows import AS_OF
from ml_platform.spec import Project


def feast_objects(project: Project, lake: str) -> dict[str, Any]:
    """Entities, Delta-backed sources, feature views, on-demand ones and one feature service a model, by name.

    lake: root of the Delta tables; the view ``v`` is stored in ``features/v``.
    """
    from feast import Entity, FeatureService, FeatureView, Field, ValueType
    from feast.types import Bool, Float64, Int64, String, UnixTimestamp

    from ml_platform.features.feast_request import on_demand_view
    from ml_platform.features.feast_source import DeltaSource

    value_types = {"string": ValueType.STRING, "int64": ValueType.INT64}
    field_types = {"int64": Int64, "float64": Float64, "string": String, "bool": Bool, "timestamp": UnixTimestamp}
    declared = {entity.name: entity for view in project.views.values() for entity in view.entities}
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=value_types[e.dtype], description=e.description)
        for name, e in declared.items()
    }
    views = {
        view.name: FeatureView(
            name=view.name,
            entities=[entities[name] for name in view.entity_names],
            schema=[
                *(Field(name=entity.name, dtype=field_types[entity.dtype]) for entity in view.entities),
                *(Field(name=name, dtype=field_types[kind]) for name, kind in view.schema().items()),
            ],
            source=DeltaSource(
                name=f"{view.name}_table",
                path=f"{lake.rstrip('/')}/features/{view.name}",
                timestamp_field=AS_OF,  # computed from what was known by then: no later creation to look at
            ),
            ttl=timedelta(0),  # an emptied window writes a row that says so; values do not expire silently
            online=True,
            description=view.description,
            owner=view.owner,
        )
        for view in project.views.values()
    }
    on_demand = {
        name: on_demand_view(view, project, views, field_types) for name, view in project.request_views.items()
    }
    named = {**views, **on_demand}
    services = {
        f"{spec.name}_features": FeatureService(
            name=spec.name, features=[named[name] for name in spec.views], description=spec.description
        )
        for spec in project.models.values()
    }
    return {
        **{f"entity_{name}": entity for name, entity in entities.items()},
        **{f"view_{name}": view for name, view in named.items()},
        **services,
    }
