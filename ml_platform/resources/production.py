"""What only the production profile has: the S3 resource, and the bucket that compute logs go to."""

from typing import Any
from urllib.parse import urlparse

from ml_platform.resources.profiles import Profile
from ml_platform.spec import DeclarationError


def bucket_of(profile: Profile) -> str | None:
    """The bucket that holds the lake, compute logs beside it; None where the lake is a local folder.

    Raises:
        DeclarationError: the lake's address is neither a folder nor ``s3://bucket/prefix``.
    """
    address = urlparse(profile.lake)
    if not address.scheme:
        return None
    if address.scheme != "s3" or not address.netloc:
        raise DeclarationError(
            f"ML_PLATFORM_LAKE is {profile.lake!r}; it must be s3://bucket/prefix or an absolute folder; "
            f"see deploy/production.md"
        )
    return address.netloc


def production_resources(profile: Profile) -> dict[str, Any]:
    """The resources to add to the definitions: ``s3`` where the lake lies in a bucket, else nothing.

    The client takes its credentials from where boto looks (environment, profile, instance role).
    """
    if bucket_of(profile) is None:
        return {}
    from dagster_aws.s3 import S3Resource

    options = profile.storage_options
    return {"s3": S3Resource(endpoint_url=options.get("AWS_ENDPOINT_URL"), region_name=options.get("AWS_REGION"))}
