// A certified authorization server, and an API that verifies its tokens.
//
//   node servers.mjs [authorization server port] [API port]
//
// When both servers are ready, this script prints their URLs as one line of JSON.

import { auth, requiredScopes } from 'express-oauth2-jwt-bearer';
import { errors } from 'oidc-provider';

import { api, certifiedServer, client, listen, ready } from './common.mjs';

const ORDERS = { resource: 'https://orders.test', scope: 'orders:read' };
const CLIENTS = [
  client('basic: 100% + more', 's:e%63r+e t&=/?"~'),
  client('post: 100% + more', 'p:o%73+s t&=/?"~', 'client_secret_post'),
  client('lives-2-seconds', 'secret-of-2'),
  client('lives-12-seconds', 'secret-of-12'),
];
const LIFETIMES = { 'lives-2-seconds': 2, 'lives-12-seconds': 12 };

const [authorizationPort = 0, apiPort = 0] = process.argv.slice(2).map(Number);
const authorization = await listen(authorizationPort);
const server = certifiedServer(authorization.url, {
  clients: CLIENTS,
  ttl: { ClientCredentials: (ctx, token, client) => LIFETIMES[client.clientId] ?? 3600 },
  features: { resourceIndicators: { enabled: true, getResourceServerInfo } },
});
authorization.serve(server.handler);

const jwt = [
  auth({ issuerBaseURL: authorization.url, audience: ORDERS.resource }),
  requiredScopes(ORDERS.scope),
];
const resource = await listen(apiPort);
resource.serve(api([['/jwt', ...jwt], ['/opaque', server.authenticate]], server.revokeAll));
ready({
  token_url: server.tokenUrl,
  introspection_url: server.introspectionUrl,
  api_url: resource.url,
});

function getResourceServerInfo(ctx, resource) {
  if (resource !== ORDERS.resource) throw new errors.InvalidTarget();
  return { scope: ORDERS.scope, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
}
