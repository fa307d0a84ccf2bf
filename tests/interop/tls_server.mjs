// A certified authorization server over TLS.
//
//   node tls_server.mjs CERTIFICATE-FILE KEY-FILE
//
// When the server is ready, it prints its port as one line of JSON.

import { readFileSync } from 'node:fs';

import { certifiedServer, client, listen, ready } from './common.mjs';

const [cert, key] = process.argv.slice(2).map((file) => readFileSync(file));
const { url, serve } = await listen(0, { cert, key });
const server = certifiedServer(url, { clients: [client('client', 'secret of the client')] });
serve(server.handler);
ready({ port: Number(new URL(url).port) });
