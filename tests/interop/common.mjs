// What the servers here share: a certified authorization server, an API, what both have seen, and how they start and end.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import express from 'express';
import { InvalidTokenError, UnauthorizedError } from 'express-oauth2-jwt-bearer';
import { Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const API_CLIENT = { client_id: 'api', client_secret: 'secret-of-the-api', grant_types: [] };

export const counts = { token_requests: 0, tokens_issued: 0, api_served: 0, api_refused: 0 };

// On 127.0.0.1; the system chooses a port that is 0.
export async function listen(port) {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, serve: (handler) => server.on('request', handler) };
}

// The servers end with their stdin, and so with whoever started them.
export function ready(urls) {
  process.stdin.resume().on('end', () => process.exit());
  console.log(JSON.stringify(urls));
}

export function certifiedServer(issuer, { clients, features, ...configuration }) {
  const provider = new Provider(issuer, {
    adapter: createMemoryAdapter(),
    jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
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
      introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === API_CLIENT.client_id },
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

export function client(client_id, client_secret, token_endpoint_auth_method = 'client_secret_basic') {
  return { client_id, client_secret, token_endpoint_auth_method };
}

// An app with these routes, each behind what verifies the token there.
export function api(routes, revokeAll) {
  const app = express();
  app.use(express.text());
  for (const [path, ...verifiers] of routes) app.all(path, ...verifiers, echo);
  app.get('/control/counts', (req, res) => res.json(counts));
  app.post('/control/revoke-all', async (req, res) => {
    await revokeAll();
    res.json({});
  });
  return app.use(refuse);
}

function echo(req, res) {
  counts.api_served += 1;
  res.type('text').send(req.body ?? '');
}

function refuse(error, req, res, next) {
  if (error.status === 401) counts.api_refused += 1;
  else console.error(error);
  res.status(error.status ?? 500).set(error.headers ?? {}).end();
}

function introspection(url) {
  return async (req, res, next) => {
    const token = /^Bearer (.+)$/.exec(req.get('authorization'))?.[1];
    if (!token) throw new UnauthorizedError();
    const credentials = btoa(`${API_CLIENT.client_id}:${API_CLIENT.client_secret}`);
    const answer = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Basic ${credentials}` },
      body: new URLSearchParams({ token }),
    });
    if (!answer.ok) throw new Error(`introspection answered ${answer.status}`);
    if (!(await answer.json()).active) throw new InvalidTokenError('inactive');
    next();
  };
}
