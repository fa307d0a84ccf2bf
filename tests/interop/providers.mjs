// One provider, on real server software: its token endpoint, and an API that verifies the tokens at /api.
//
//   node providers.mjs pex|pa|expertfile|saas|legacy
//
// When it is ready, one line of JSON says where.

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
      const { accessToken } = await server.token(new OAuth2Server.Request(req), new OAuth2Server.Response());
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
      res.status(400).json({ error: 'invalid_request', error_description: 'audience is missing or not known' });
      return;
    }
    const headers = { ...req.headers, 'content-type': 'application/x-www-form-urlencoded' };
    const answer = new OAuth2Server.Response();
    const form = new OAuth2Server.Request({ method: req.method, query: {}, headers, body });
    await server.token(form, answer).catch((error) => error);
    res.status(answer.status).set(answer.headers).json(answer.body);
  };
  return api([['/api', authentication(server)]], () => revokeAll(server))
    .use(express.json())
    .post('/oauth/token', token);
}

function legacy() {
  let secret = SECRET;
  const verify = basicAuth({
    authorizer: (id, given) => basicAuth.safeCompare(id, ID) & basicAuth.safeCompare(given, secret),
    challenge: true,
    unauthorizedResponse: () => {
      counts.api_refused += 1;
      return '';
    },
  });
  return api([['/api', verify]], () => {
    secret = `${SECRET} (rotated)`;
  });
}

// The native token model of the server is what its model has stored.
function nativeServer(accessTokenLifetime) {
  const tokens = new Map();
  const model = {
    getClient: (id, secret) => id === ID && secret === SECRET && { id, grants: ['client_credentials'] },
    getUserFromClient: ({ id }) => ({ id }),
    // Says "yes" where 5.x wants a list: the server stores the `true`, but would fail to join it for its answer.
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
    const answer = new OAuth2Server.Response();
    const verified = server.authenticate(new OAuth2Server.Request(req), answer);
    await verified.catch((error) => {
      throw Object.assign(error, { headers: answer.headers });
    });
    next();
  };
}
