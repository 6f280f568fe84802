import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
service = JWTAuth(os.environ.get("JWT_KEY") or os.urandom(32), algorithms=["HS256"])


async def only_billing(claims: Annotated[Claims, Depends(service)]) -> None:
    if claims.sub != "billing":
        raise HTTPException(403, "for the billing service")


manager.http_api(app, "/api", dependency=only_billing)
