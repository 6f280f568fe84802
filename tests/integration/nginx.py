"""nginx in front of servers, with its defaults."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

from tests.integration.endpoints import free_port
from tests.integration.events import request
from tests.integration.support import eventually


@asynccontextmanager
async def behind_nginx(ports: Sequence[int], folder: Path) -> AsyncIterator[SimpleNamespace]:
    """nginx with its defaults: HTTP/1.0 to the servers, buffers, and each request to the next server.

    Args:
        ports: The ports of the servers.
        folder: A folder for its files.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    assert nginx is not None, "no nginx: sudo apt-get install -y --no-install-recommends nginx"
    proxy = SimpleNamespace(port=free_port())
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    servers = "".join(f"server 127.0.0.1:{port};\n" for port in ports)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}upstream app {{\n{servers}}}\n"
        f"server {{\nlisten 127.0.0.1:{proxy.port};\nlocation / {{ proxy_pass http://app; }}\n}}\n}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def is_up() -> bool:
        with suppress(OSError):
            async with request(proxy, "/there-is-no-such-path") as stream:
                return stream.status == 404
        return False

    try:
        await eventually(is_up)
        yield proxy
    finally:
        process.terminate()
        await process.wait()
