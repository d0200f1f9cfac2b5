#!/usr/bin/env python3
"""What Nextcloud and ownCloud do beyond plain WebDAV, in memory: file ids, etags that change up to the root, X-OC-Mtime,
chunked upload v2, dead properties, conditions as SabreDAV has them. Usage: nextcloud.py PORT nextcloud|owncloud source|target

The last word says what If-Match on the MOVE of `.file` is about: the source, as SabreDAV has it, or the target, as newer
Nextcloud has it. Facts: providers/webdav.md. An emulator is no Nextcloud: it shows that our half keeps to the manual."""
import base64, hashlib, re, sys, threading, time, itertools
import xml.etree.ElementTree as ET
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

PORT, KIND, MOVES = int(sys.argv[1]), sys.argv[2], sys.argv[3]
USER, PASSWORD, TOKEN = "ann", "pass word", "t0ken"
DAV, OC = "DAV:", "http://owncloud.org/ns"
LOCK, IDS = threading.RLock(), itertools.count(1)


class Node:
    def __init__(self, content=None):
        self.content, self.children = content, {} if content is None else None
        self.id, self.mtime, self.props = next(IDS), time.time(), {}
        self.touch()

    def touch(self):
        self.etag = hashlib.md5(str(next(IDS)).encode()).hexdigest()


ROOT = Node()
for part in (["remote.php"], ["remote.php", "dav"], ["remote.php", "dav", "files"], ["remote.php", "dav", "uploads"],
             ["remote.php", "dav", "files", USER], ["remote.php", "dav", "uploads", USER]):
    at = ROOT
    for name in part:
        at = at.children.setdefault(name, Node())


def parts(path):
    return [unquote(p) for p in urlsplit(path).path.split("/") if p]


def find(names):
    node = ROOT
    for name in names:
        if node is None or node.children is None:
            return None
        node = node.children.get(name)
    return node


def changed(names):
    """Etags change from here to the root."""
    node = ROOT
    node.touch()
    for name in names:
        node = node.children.get(name) if node.children is not None else None
        if node is None:
            return
        node.touch()


def clone(node):
    new = Node(node.content)
    new.mtime, new.props = node.mtime, dict(node.props)
    if node.children is not None:
        new.children = {name: clone(child) for name, child in node.children.items()}
    return new


class Handler(BaseHTTPRequestHandler):
    protocol_version, server_version = "HTTP/1.1", "Apache"
    # One packet an answer: two small ones would wait 40 ms for each other.
    wbufsize, disable_nagle_algorithm = -1, True

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, message):
        body = (f'<?xml version="1.0"?><d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><s:exception>x</s:exception>'
                f"<s:message>{escape(message)}</s:message></d:error>")
        self.reply(status, body.encode(), Content_Type="application/xml")

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if len(data) < length:
            self.close_connection = True
        return data, length

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def handle_any(self):
        data, length = self.body()
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") not in (basic, f"Bearer {TOKEN}"):
            return self.reply(401, b"sign in", WWW_Authenticate='Basic realm="cloud"')
        with LOCK:
            names = parts(self.path)
            node = find(names)
            if self.command in ("GET", "HEAD", "PUT", "DELETE", "MOVE", "COPY", "PROPPATCH") and not self.conditions(names, node):
                return self.error(412, "a condition does not hold")
            call = getattr(self, "on_" + self.command.lower(), None)
            if call is None:
                return self.error(405, "no such method")
            call(names, node, data, length)

    def conditions(self, names, node):
        tag = node and (f'"{node.etag}"' if node.children is None else None)
        target = names
        match, none = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if names[-1:] == [".file"] and self.command == "MOVE":
            if MOVES == "target":
                node = find(parts(self.headers["Destination"]))
                tag = node and f'"{node.etag}"'
            else:
                node, tag = True, '"assembly"'
        if match and (node is None or (match != "*" and match != tag)):
            return False
        if none == "*" and node is not None:
            return False
        tagged = re.match(r"<([^>]*)> \(\[(.*)\]\)", self.headers.get("If", ""))
        if tagged:
            node = find(parts(tagged[1]))
            return node is not None and f'"{node.etag}"' == tagged[2]
        return True

    def on_options(self, names, node, data, length):
        classes = "1, 3, extended-mkcol" + (", nextcloud-checksum-update, nc-calendar-search" if KIND == "nextcloud" else "")
        self.reply(200, DAV=classes)

    def on_get(self, names, node, data, length):
        if node is None:
            return self.error(404, "File could not be located")
        if node.children is not None:
            return self.reply(200, b"<html>This is the WebDAV interface.</html>", Content_Type="text/html")
        content, tag = node.content, f'"{node.etag}"'
        headers = {"ETag": tag, "OC_ETag": tag, "Last_Modified": formatdate(node.mtime, usegmt=True)}
        wanted = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        bound = self.headers.get("If-Range")
        if wanted and (bound is None or bound == tag):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            if first >= len(content):
                return self.error(416, "past the end")
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.reply(206, content[first:last + 1], **headers)
        self.reply(200, content, **headers)

    on_head = on_get

    def on_put(self, names, node, data, length):
        if len(data) < length:
            return self.error(400, f"Expected filesize of {length} bytes but read {len(data)}")
        parent = find(names[:-1])
        if parent is None or parent.children is None:
            return self.error(404 if "uploads" in names[:3] else 409, "Parent node does not exist")
        if node is not None and node.children is not None:
            return self.error(409, "PUT is not allowed on non-files.")
        self.store(names, node, data, 204 if node else 201)

    def store(self, names, node, data, status):
        parent = find(names[:-1])
        if node is None:
            node = parent.children[names[-1]] = Node(data)
        node.content, node.mtime = data, time.time()
        headers = {}
        if "X-OC-Mtime" in self.headers:
            node.mtime = int(self.headers["X-OC-Mtime"])
            headers["X_OC_Mtime"] = "accepted"
        changed(names)
        tag = f'"{node.etag}"'
        self.reply(status, OC_ETag=tag, ETag=tag, OC_FileId=f"{node.id:08}cloud", **headers)

    def on_mkcol(self, names, node, data, length):
        parent = find(names[:-1])
        if node is not None:
            return self.error(405, "The resource you tried to create already exists")
        if parent is None or parent.children is None:
            return self.error(409, "Parent node does not exist")
        parent.children[names[-1]] = Node()
        changed(names)
        self.reply(201)

    def on_delete(self, names, node, data, length):
        if node is None:
            return self.error(404, "File could not be located")
        del find(names[:-1]).children[names[-1]]
        changed(names[:-1])
        self.reply(204)

    def on_move(self, names, node, data, length):
        self.transfer(names, node, False)

    def on_copy(self, names, node, data, length):
        self.transfer(names, node, True)

    def transfer(self, names, node, copy):
        to = parts(self.headers["Destination"])
        target, parent = find(to), find(to[:-1])
        if names[-1:] == [".file"]:
            return self.assemble(names, to, target, parent)
        if node is None:
            return self.error(404, "File could not be located")
        if parent is None or parent.children is None:
            return self.error(409, "The destination node is not found")
        if target is not None and self.headers.get("Overwrite", "T") == "F":
            return self.error(412, "The destination node already exists, and the overwrite header is set to false")
        if not copy:
            del find(names[:-1]).children[names[-1]]
        parent.children[to[-1]] = clone(node) if copy else node
        changed(names[:-1])
        changed(to[:-1])
        self.reply(204 if target else 201, OC_ETag=f'"{node.etag}"')

    def assemble(self, names, to, target, parent):
        folder = find(names[:-1])
        if folder is None:
            return self.error(404, "no such upload")
        if parent is None or parent.children is None:
            return self.error(409, "The destination node is not found")
        if target is not None and self.headers.get("Overwrite", "T") == "F":
            return self.error(412, "The destination node already exists, and the overwrite header is set to false")
        content = b"".join(folder.children[name].content for name in sorted(folder.children))
        if len(content) != int(self.headers.get("OC-Total-Length", len(content))):
            return self.error(400, "Chunks on server do not sum up")
        del find(names[:-2]).children[names[-2]]
        self.store(to, target, content, 204 if target else 201)

    def on_propfind(self, names, node, data, length):
        if node is None:
            return self.error(404, "File could not be located")
        wanted = [element.tag for element in ET.fromstring(data).find(f"{{{DAV}}}prop")]
        out = ['<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">']
        self.describe(out, names, node, wanted, {"0": 0, "1": 1}.get(self.headers.get("Depth"), 99))
        self.reply(207, ("".join(out) + "</d:multistatus>").encode(), Content_Type="application/xml; charset=utf-8")

    def describe(self, out, names, node, wanted, depth):
        href = "/" + "/".join(quote(name) for name in names) + ("/" if node.children is not None else "")
        facts = {f"{{{DAV}}}resourcetype": "<d:collection/>" if node.children is not None else "",
                 f"{{{DAV}}}getlastmodified": formatdate(node.mtime, usegmt=True),
                 f"{{{DAV}}}getetag": f"&quot;{node.etag}&quot;", f"{{{OC}}}fileid": str(node.id)}
        if node.children is None:
            facts[f"{{{DAV}}}getcontentlength"] = str(len(node.content))
            if KIND == "owncloud":
                sums = f"SHA1:{hashlib.sha1(node.content).hexdigest()} MD5:{hashlib.md5(node.content).hexdigest()} ADLER32:0"
                facts[f"{{{OC}}}checksums"] = f"<oc:checksum>{sums}</oc:checksum>"
        else:
            facts[f"{{{DAV}}}quota-available-bytes"], facts[f"{{{DAV}}}quota-used-bytes"] = "-3", "7"
        facts.update({tag: escape(text) for tag, text in node.props.items()})
        out.append(f"<d:response><d:href>{escape(href)}</d:href>")
        for there, status in ((True, "200 OK"), (False, "404 Not Found")):
            found = [tag for tag in wanted if (tag in facts) == there]
            if found:
                out.append("<d:propstat><d:prop>")
                for tag in found:
                    space, name = tag[1:].split("}")
                    out.append(f'<x:{name} xmlns:x="{space}">{facts.get(tag, "")}</x:{name}>')
                out.append(f"</d:prop><d:status>HTTP/1.1 {status}</d:status></d:propstat>")
        out.append("</d:response>")
        if depth > 0 and node.children is not None:
            for name, child in sorted(node.children.items()):
                self.describe(out, names + [name], child, wanted, depth - 1)

    def on_proppatch(self, names, node, data, length):
        if node is None:
            return self.error(404, "File could not be located")
        done = []
        for prop in ET.fromstring(data).iter(f"{{{DAV}}}prop"):
            for element in prop:
                if element.tag == f"{{{DAV}}}lastmodified":
                    node.mtime = int(element.text)
                    changed(names)
                else:
                    node.props[element.tag] = element.text or ""
                space, name = element.tag[1:].split("}")
                done.append(f'<x:{name} xmlns:x="{space}"/>')
        href = "/" + "/".join(quote(name) for name in names)
        body = (f'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"><d:response><d:href>{escape(href)}</d:href><d:propstat>'
                f'<d:prop>{"".join(done)}</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>')
        self.reply(207, body.encode(), Content_Type="application/xml")


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
