"""An endpoint whose clients have two kinds of token: one for the connection, and one for each film they have bought."""

import os
import time
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

SECRET = os.environ["JWT_KEY"]
BOUGHT = {("ann", "metropolis")}

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
current_user = JWTAuth(SECRET, algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


@app.post("/sign-in")
async def sign_in(name: str) -> dict[str, str]:  # a real one checks a password, or uses an identity provider
    claims = {"sub": name.lower(), "exp": int(time.time()) + 900}
    return {"token": jwt.encode(claims, SECRET, "HS256")}


@app.post("/films/{film}/token")
async def film_token(film: str, user: User) -> dict[str, str]:  # could be another service, which has the key
    if (user.sub, film) not in BOUGHT:
        raise HTTPException(403, "buy the film first")
    claims = {"sub": user.sub, "channel": f"film:{film}", "exp": int(time.time()) + 3600}
    return {"token": jwt.encode(claims, SECRET, "HS256")}


@live.room("film:{film}", token=True)
async def may_watch(film: str, claims: Claims) -> bool:
    return True  # the token says so; a function can still refuse
