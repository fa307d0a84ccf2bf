// One provider on real server software: its token endpoint, and an API at /api that verifies the
// tokens.
//
//   node providers.mjs pex|pa|expertfile|saas|legacy
//
// When the server is ready, it prints its URL as one line of JSON.

import OAuth2Server from '@node-oauth/oauth2-server';
import express from 'express';
import basicAuth from 'express-basic-auth';

import { api, certifiedServer, client, counts, listen, ready } from './common.mjs';

const ID = 'client 100% + more';
const SECRET = 's:e%63r+e t&=/?"~';
const AUDIENCE = 'https://api.saas.test';
const DAY = 86_400;

const PROVIDERS = { pex, pa, expertfile, saas, legacy };

const { url, serve } = await listen(0);
serve(PROVIDERS[process.argv[2]](url));
ready({ api_url: url });

function pex(url) {
  const server = certifiedServer(url, {
    clients: [client(ID, SECRET)],
    clientAuthMethods: ['client_secret_basic'],
    routes: { token: '/oauth2/token' },
    ttl: { ClientCredentials: 7200 },
  });
  return api([['/api', server.authenticate]], server.revokeAll).use(server.handler);
}

function pa(url) {
  const server = certifiedServer(url, {
    clients: [client(ID, SECRET, 'client_secret_post')],
    routes: { token: '/auth/connect/token' },
    scopes: ['api:recs', 'api:search'],
    ttl: { ClientCredentials: 90_000 },
  });
  return api([['/api', server.authenticate]], server.revokeAll).use(server.handler);
}

function expertfile() {
  const server = nativeServer(30 * DAY);
  const token = (failure) => async (req, res) => {
    counts.token_requests += 1;
    try {
      const request = new OAuth2Server.Request(req);
      const { accessToken } = await server.token(request, new OAuth2Server.Response());
      res.json({ data: server.options.model.getAccessToken(accessToken), success: true });
    } catch (error) {
      res.status(error.code).json({ success: false, [failure]: error.message });
    }
  };
  return api([['/api', authentication(server)]], () => revokeAll(server))
    .use(express.urlencoded())
    .post('/oauth/token', token('message'))
    .post('/v2/oauth/token', token('error'));
}

function saas() {
  const server = nativeServer(DAY);
  const token = async (req, res) => {
    counts.token_requests += 1;
    const { audience, ...body } = req.body ?? {};
    if (audience !== AUDIENCE) {
      const error_description = 'audience is missing or unknown';
      res.status(400).json({ error: 'invalid_request', error_description });
      return;
    }
    const headers = { ...req.headers, 'content-type': 'application/x-www-form-urlencoded' };
    const response = new OAuth2Server.Response();
    const form = new OAuth2Server.Request({ method: req.method, query: {}, headers, body });
    // The server writes its errors to the response, too.
    await server.token(form, response).catch((error) => error);
    res.status(response.status).set(response.headers).json(response.body);
  };
  return api([['/api', authentication(server)]], () => revokeAll(server))
    .use(express.json())
    .post('/oauth/token', token);
}

function legacy() {
  let secret = SECRET;
  const verify = basicAuth({
    authorizer: (id, password) =>
      basicAuth.safeCompare(id, ID) & basicAuth.safeCompare(password, secret),
    challenge: true,
    unauthorizedResponse: () => {
      counts.api_rejected += 1;
      return '';
    },
  });
  return api([['/api', verify]], () => {
    secret = `${SECRET} (rotated)`;
  });
}

// Returns a server that stores its tokens in memory, in the server's native token format.
function nativeServer(accessTokenLifetime) {
  const tokens = new Map();
  const grants = ['client_credentials'];
  const model = {
    getClient: (id, secret) => id === ID && secret === SECRET && { id, grants },
    getUserFromClient: ({ id }) => ({ id }),
    // Version 5 of the server expects a list and would fail to join `true` for its response. Hence
    // `saveToken` returns a token without a scope, while the stored token keeps `true`.
    validateScope: () => true,
    saveToken: (token, { id }, user) => {
      counts.tokens_issued += 1;
      tokens.set(token.accessToken, { ...token, client: { id }, user });
      return { ...tokens.get(token.accessToken), scope: undefined };
    },
    getAccessToken: (accessToken) => tokens.get(accessToken),
    revokeToken: ({ accessToken }) => tokens.delete(accessToken),
  };
  return Object.assign(new OAuth2Server({ accessTokenLifetime, model }), { tokens });
}

function revokeAll({ tokens, options }) {
  for (const token of tokens.values()) options.model.revokeToken(token);
}

function authentication(server) {
  return async (req, res, next) => {
    const response = new OAuth2Server.Response();
    const verified = server.authenticate(new OAuth2Server.Request(req), response);
    await verified.catch((error) => {
      throw Object.assign(error, { headers: response.headers });
    });
    next();
  };
}
