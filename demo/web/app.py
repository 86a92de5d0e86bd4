"""Counts visits to pages: every POST writes to the database and answers with what it reads back."""

import os

import psycopg2
from flask import Flask, jsonify, request

app = Flask(__name__)
_connection = None


def database():
    """The worker's own connection, made at its first request and again when it was lost."""
    global _connection
    if _connection is None or _connection.closed:
        _connection = psycopg2.connect(
            dbname="web",
            user="web",
            password="web",
            host=os.environ.get("WEB_DATABASE", "/srv/web/run/postgresql"),
        )
    return _connection


@app.get("/")
def total():
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(visits), 0) FROM pages")
        return jsonify(visits=int(cursor.fetchone()[0]))


@app.post("/visit")
def visit():
    page = str(request.get_json(force=True)["page"])
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO visits (page) VALUES (%s) RETURNING id", (page,))
        number = cursor.fetchone()[0]
        cursor.execute(
            "INSERT INTO pages VALUES (%s, 1)"
            " ON CONFLICT (page) DO UPDATE SET visits = pages.visits + 1",
            (page,),
        )
    with database() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.visits, v.at FROM visits v JOIN pages p USING (page) WHERE v.id = %s",
            (number,),
        )
        visits, at = cursor.fetchone()
    return jsonify(id=number, page=page, visits=visits, at=at.isoformat())
