// A certified authorization server, and an API that verifies its tokens.
//
//   node servers.mjs [authorization server port] [API port]
//
// Both listen on 127.0.0.1; the system chooses a port that is 0 or missing. When they are ready, one line of JSON says
// where. They end with their stdin, and so with whoever started them.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import express from 'express';
import { auth, InvalidTokenError, requiredScopes, UnauthorizedError } from 'express-oauth2-jwt-bearer';
import { errors, Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const ORDERS = { resource: 'https://orders.test', scope: 'orders:read' };
const API_CLIENT = { client_id: 'api', client_secret: 'secret-of-the-api', grant_types: [] };
const CLIENTS = [
  client('basic: 100% + more', 's:e%63r+e t&=/?"~'),
  client('post: 100% + more', 'p:o%73+s t&=/?"~', 'client_secret_post'),
  client('lives-2-seconds', 'secret-of-2'),
  client('lives-12-seconds', 'secret-of-12'),
  API_CLIENT,
];
const LIFETIMES = { 'lives-2-seconds': 2, 'lives-12-seconds': 12 };

const counts = { token_requests: 0, api_served: 0, api_refused: 0 };

const [authorizationPort = 0, apiPort = 0] = process.argv.slice(2).map(Number);
const authorizationServer = createServer();
const issuer = await listen(authorizationServer, authorizationPort);
const provider = new Provider(issuer, {
  adapter: createMemoryAdapter(),
  jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
  clients: CLIENTS,
  clientDefaults: {
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    id_token_signed_response_alg: 'ES256',
  },
  ttl: { ClientCredentials: (ctx, token, client) => LIFETIMES[client.clientId] ?? 3600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === API_CLIENT.client_id },
    revocation: { enabled: true },
    resourceIndicators: { enabled: true, getResourceServerInfo },
  },
});
const issued = [];
provider.on('client_credentials.saved', (token) => issued.push(token));
provider.on('server_error', (ctx, error) => console.error(error));
provider.use((ctx, next) => {
  if (ctx.path === '/token') counts.token_requests += 1;
  return next();
});
authorizationServer.on('request', provider.callback());

const api = express();
api.use(express.text());
api.all('/jwt', auth({ issuerBaseURL: issuer, audience: ORDERS.resource }), requiredScopes(ORDERS.scope), serve);
api.all('/opaque', introspect, serve);
api.get('/control/counts', (req, res) => res.json(counts));
api.post('/control/revoke-all', async (req, res) => {
  await Promise.all(issued.splice(0).map((token) => token.destroy()));
  res.json({});
});
api.use(refuse);
const apiUrl = await listen(createServer(api), apiPort);

process.stdin.resume().on('end', () => process.exit());
console.log(JSON.stringify({ token_url: `${issuer}/token`, api_url: apiUrl }));

function client(client_id, client_secret, token_endpoint_auth_method = 'client_secret_basic') {
  return { client_id, client_secret, token_endpoint_auth_method };
}

async function listen(server, port) {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

function getResourceServerInfo(ctx, resource) {
  if (resource !== ORDERS.resource) throw new errors.InvalidTarget();
  return { scope: ORDERS.scope, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
}

async function introspect(req, res, next) {
  const token = /^Bearer (.+)$/.exec(req.get('authorization'))?.[1];
  if (!token) throw new UnauthorizedError();
  const credentials = btoa(`${API_CLIENT.client_id}:${API_CLIENT.client_secret}`);
  const answer = await fetch(`${issuer}/token/introspection`, {
    method: 'POST',
    headers: { authorization: `Basic ${credentials}` },
    body: new URLSearchParams({ token }),
  });
  if (!answer.ok) throw new Error(`introspection answered ${answer.status}`);
  if (!(await answer.json()).active) throw new InvalidTokenError('inactive');
  next();
}

function serve(req, res) {
  counts.api_served += 1;
  res.type('text').send(req.body ?? '');
}

function refuse(error, req, res, next) {
  if (error.status === 401) counts.api_refused += 1;
  else console.error(error);
  res.status(error.status ?? 500).set(error.headers ?? {}).end();
}
