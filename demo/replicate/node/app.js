// The smallest express application: what the published measurements ran as "node".
"use strict";
const express = require("express");
const app = express();
app.get("/", (_request, response) => response.send("hello\n"));
app.listen(8080, "0.0.0.0");
