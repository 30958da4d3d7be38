"""What GDAL needs to know to read from the same store with the same credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rastervision.aws_s3.client import Store

__all__ = ["gdal_options"]

# by itself, GDAL does not try again; so it waits 11 s at most
_PATIENCE = {"GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "0.5"}


def gdal_options(store: Store) -> dict[str, str]:
    """Return GDAL's configuration options for ``/vsis3/``, credentials that are valid now included."""
    options = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    if region := store.settings.region or store.session.region_name:
        options["AWS_REGION"] = region
    if store.settings.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    endpoint = urlsplit(store.client.meta.endpoint_url)
    if not f".{endpoint.hostname}".endswith((".amazonaws.com", ".amazonaws.com.cn")):
        options["AWS_S3_ENDPOINT"] = endpoint.netloc + endpoint.path.rstrip("/")
        options["AWS_HTTPS"] = "YES" if endpoint.scheme == "https" else "NO"
        options["AWS_VIRTUAL_HOSTING"] = "TRUE" if store.settings.addressing_style == "virtual" else "FALSE"
    if store.settings.unsigned:
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    elif (credentials := store.session.get_credentials()) is not None:
        now = credentials.get_frozen_credentials()
        options["AWS_ACCESS_KEY_ID"] = now.access_key
        options["AWS_SECRET_ACCESS_KEY"] = now.secret_key
        # empty rather than left out: the environment may have that of other credentials
        options["AWS_SESSION_TOKEN"] = now.token or ""
    return options
