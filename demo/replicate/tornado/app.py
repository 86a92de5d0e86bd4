# The smallest tornado application: what the published measurements ran as "python".
import asyncio

import tornado.web


class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("hello\n")


async def main():
    tornado.web.Application([("/", Hello)]).listen(8080)
    await asyncio.Event().wait()


asyncio.run(main())
