"""Names of types: Polars' own, and those of numpy, pandas and Python that Great Expectations' suites use."""

import polars as pl

from ml_platform.spec.errors import UnknownName

_Type = type[pl.DataType] | pl.DataType
_WHOLE = tuple(f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64))
_POLARS: dict[str, tuple[_Type, ...]] = {
    name: (getattr(pl, name),)
    for name in (*_WHOLE, "Float32", "Float64", "Boolean", "String", "Date", "Datetime", "Duration", "Time", "Binary")
}
_NUMPY: dict[str, tuple[_Type, ...]] = {
    **{name.lower(): (getattr(pl, name),) for name in (*_WHOLE, "Float32", "Float64")},
    **{f"{name.lower()}Dtype": (getattr(pl, name),) for name in _WHOLE},
    **{f"{name}Dtype": (getattr(pl, name),) for name in (*_WHOLE, "Float32", "Float64")},
}
_OTHERS: dict[str, tuple[_Type, ...]] = {
    **dict.fromkeys(("int", "long", "int_"), (pl.Int64,)),
    **dict.fromkeys(("float", "float_", "double"), (pl.Float64,)),
    **dict.fromkeys(("bool", "bool_", "BooleanDtype"), (pl.Boolean,)),
    **dict.fromkeys(("str", "string_types", "StringDtype", "Utf8"), (pl.String,)),
    **dict.fromkeys(("bytes",), (pl.Binary,)),
    **dict.fromkeys(("datetime64", "datetime64[ns]", "datetime64[us]", "DatetimeTZDtype"), (pl.Datetime,)),
    **dict.fromkeys(("timedelta64", "timedelta64[ns]"), (pl.Duration,)),
    **dict.fromkeys(("list",), (pl.List,)),
    **dict.fromkeys(("dict",), (pl.Struct,)),
}
_KNOWN = {**_POLARS, **_NUMPY, **_OTHERS}


def types_named(name: str) -> tuple[_Type, ...]:
    """The Polars types that a name stands for.

    Raises:
        UnknownName: it stands for none.
    """
    if name not in _KNOWN:
        raise UnknownName("type", name, _KNOWN)
    return _KNOWN[name]
