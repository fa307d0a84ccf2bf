// Functions that all servers in this folder share: a certified authorization server, an API, their
// counters, and the start and the end of a server process.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

import express from 'express';
import { InvalidTokenError, UnauthorizedError } from 'express-oauth2-jwt-bearer';
import { Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const API_CLIENT = { client_id: 'api', client_secret: 'secret-of-the-api', grant_types: [] };

export const counts = { token_requests: 0, tokens_issued: 0, api_accepted: 0, api_rejected: 0 };

// Listens on 127.0.0.1, with TLS if there is a certificate for it. If the port is 0, the system
// chooses one.
export async function listen(port, certificate) {
  const server = certificate ? createTlsServer(certificate) : createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const scheme = certificate ? 'https' : 'http';
  const url = `${scheme}://127.0.0.1:${server.address().port}`;
  return { url, serve: (handler) => server.on('request', handler) };
}

// Prints the URLs as one line of JSON. The process exits when its stdin is closed, which happens
// when the parent process ends.
export function ready(urls) {
  process.stdin.resume().on('end', () => process.exit());
  console.log(JSON.stringify(urls));
}

export function certifiedServer(issuer, { clients, features, ...configuration }) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const provider = new Provider(issuer, {
    adapter: createMemoryAdapter(),
    jwks: { keys: [privateKey.export({ format: 'jwk' })] },
    clients: [...clients, API_CLIENT],
    clientDefaults: {
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      id_token_signed_response_alg: 'ES256',
    },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: {
        enabled: true,
        allowedPolicy: (ctx, client) => client.clientId === API_CLIENT.client_id,
      },
      revocation: { enabled: true },
      ...features,
    },
    ...configuration,
  });
  const issued = [];
  provider.on('client_credentials.saved', (token) => {
    counts.tokens_issued += 1;
    issued.push(token);
  });
  provider.on('server_error', (ctx, error) => console.error(error));
  provider.use((ctx, next) => {
    if (ctx.path === new URL(provider.urlFor('token')).pathname) counts.token_requests += 1;
    return next();
  });
  return {
    handler: provider.callback(),
    tokenUrl: provider.urlFor('token'),
    introspectionUrl: provider.urlFor('introspection'),
    authenticate: introspection(provider.urlFor('introspection')),
    revokeAll: () => Promise.all(issued.splice(0).map((token) => token.destroy())),
  };
}

export function client(client_id, client_secret, authMethod = 'client_secret_basic') {
  return { client_id, client_secret, token_endpoint_auth_method: authMethod };
}

// Returns an app with these routes. Each route verifies the token with its own middleware.
export function api(routes, revokeAll) {
  const app = express();
  app.use(express.text());
  for (const [path, ...verifiers] of routes) app.all(path, ...verifiers, echo);
  app.get('/control/counts', (req, res) => res.json(counts));
  app.post('/control/revoke-all', async (req, res) => {
    await revokeAll();
    res.json({});
  });
  return app.use(reject);
}

function echo(req, res) {
  counts.api_accepted += 1;
  res.type('text').send(req.body ?? '');
}

function reject(error, req, res, next) {
  if (error.status === 401) counts.api_rejected += 1;
  else console.error(error);
  res.status(error.status ?? 500).set(error.headers ?? {}).end();
}

function introspection(url) {
  return async (req, res, next) => {
    const token = /^Bearer (.+)$/.exec(req.get('authorization'))?.[1];
    if (!token) throw new UnauthorizedError();
    const credentials = btoa(`${API_CLIENT.client_id}:${API_CLIENT.client_secret}`);
    const response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Basic ${credentials}` },
      body: new URLSearchParams({ token }),
    });
    if (!response.ok) throw new Error(`introspection returned ${response.status}`);
    if (!(await response.json()).active) throw new InvalidTokenError('inactive');
    next();
  };
}
