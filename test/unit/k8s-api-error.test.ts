import { createSecureContext } from 'node:tls';
import { expect } from 'chai';
import { errorMessage } from '../../src/error-message.ts';
import { ApiError, errorFromResponse, errorFromTransport, isTrustFailure } from '../../src/k8s/api-error.ts';
import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import * as answers from '../support/recorded-responses.ts';
import type { RecordedResponse } from '../support/recorded-responses.ts';

function errorOf({ status, headers, body }: RecordedResponse): ApiError {
  return errorFromResponse('create reversetunnels.reverse-tunnel.io in default a', {
    status,
    retryAfter: headers['retry-after'],
    text: body,
  });
}

function page(status: number, body: string, headers: Record<string, string> = {}): RecordedResponse {
  return { status, headers, body };
}

const HTML = '<html>\r\n<head><title>Sign in</title></head>\r\n<body>…</body></html>';

describe('errors by their consequence', () => {
  const recorded: readonly (readonly [string, RecordedResponse, ApiErrorKind])[] = [
    ['the name is taken', answers.ALREADY_EXISTS, 'already_exists'],
    ['the name is taken by an object being deleted', answers.EXISTS_TERMINATING, 'already_exists'],
    ['a stale resourceVersion', answers.CONFLICT, 'conflict'],
    ['another uid', answers.UID_CONFLICT, 'conflict'],
    ['no such object', answers.NOT_FOUND, 'not_found'],
    ['no such namespace', answers.NAMESPACE_MISSING, 'namespace_not_found'],
    ['a namespace being deleted', answers.NAMESPACE_TERMINATING, 'terminating'],
    ['a CRD being deleted', answers.CRD_TERMINATING, 'terminating'],
    ['no CRD', answers.CRD_MISSING, 'no_kind_match'],
    ['no right', answers.FORBIDDEN, 'rejected'],
    ['an invalid object', answers.INVALID, 'rejected'],
    ['a bad continue token', answers.BAD_CONTINUE, 'rejected'],
    ['a wrong token', answers.UNAUTHORIZED, 'unauthorized'],
    ['a continue token that expired', answers.CONTINUE_EXPIRED, 'expired'],
    ['a version from the future', answers.VERSION_TOO_LARGE, 'resource_version_too_large'],
    ['too many requests, in plain text', answers.TOO_MANY_REQUESTS, 'throttled'],
    ['a watch cache that is being filled', answers.INITIALIZING, 'throttled'],
    ['an API server that starts', answers.STARTING, 'throttled'],
    ['an internal error', answers.BAD_VERSION, 'unavailable'],
  ];
  for (const [situation, answer, consequence] of recorded) {
    it(`${situation} is ${consequence}`, () => {
      expect(errorOf(answer)).to.include({ kind: consequence, status: answer.status });
    });
  }

  // TestReflectorFullListIfTooLarge: as API servers since 1.18.6 say it, those since 1.17 and those before
  it('knows a version from the future in each way in which API servers have said it', () => {
    const timeout = { kind: 'Status', code: 504, reason: 'Timeout', message: 'Timeout: try again' };
    for (const status of [
      { ...timeout, details: { causes: [{ reason: 'ResourceVersionTooLarge' }] } },
      { ...timeout, details: { causes: [{ message: 'Too large resource version' }] } },
      { ...timeout, message: 'Too large resource version: 40, current: 30', details: {} },
    ]) {
      expect(errorOf(page(504, JSON.stringify(status))).kind).to.equal('resource_version_too_large');
    }
    expect(errorOf(page(504, JSON.stringify(timeout))).kind).to.equal('unavailable');
  });

  it('waits as long as it is asked to, but no more than a minute', () => {
    expect(errorOf(answers.TOO_MANY_REQUESTS).retryAfterMs).to.equal(1_000);
    expect(errorOf(answers.STARTING).retryAfterMs).to.equal(5_000);
    expect(errorOf(page(429, '', { 'retry-after': '86400' })).retryAfterMs).to.equal(60_000);
    for (const nonsense of ['Wed, 21 Oct 2026 07:28:00 GMT', '-1', '1.5', '', '99999999999']) {
      expect(errorOf(page(429, '', { 'retry-after': nonsense })).retryAfterMs, nonsense).to.equal(undefined);
    }
  });

  it('tells the answers of a proxy from those of the API server', () => {
    expect(errorOf(page(404, HTML)).kind).to.equal('unexpected_response');
    expect(errorOf(page(403, HTML)).kind).to.equal('unexpected_response');
    expect(errorOf(page(302, '')).kind).to.equal('unexpected_response');
    expect(errorOf(page(409, '{"error":"not a Status"}')).kind).to.equal('unexpected_response');
    expect(errorOf(page(404, '{"kind":"Status"')).kind).to.equal('unexpected_response');
    expect(errorOf(page(401, HTML)).kind).to.equal('unauthorized');
    expect(errorOf(page(502, HTML)).kind).to.equal('unavailable');
    expect(errorOf(page(503, HTML)).kind).to.equal('unavailable');
    expect(errorOf(page(503, HTML, { 'retry-after': '7' })).kind).to.equal('throttled');
    expect(errorOf(page(413, 'Request entity too large: limit is 3145728')).kind).to.equal('rejected');
  });

  it('reads a Status whatever its content type is, as of a 504 that is labelled text/plain', () => {
    const timeout =
      '{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout","reason":"Timeout","details":{},"code":504,"kind":"Status"}';
    expect(errorOf(page(504, timeout, { 'content-type': 'text/plain' }))).to.include({
      kind: 'unavailable',
      reason: 'Timeout',
    });
  });

  it('says in one line what was tried, on what, and why it failed', () => {
    expect(errorOf(answers.CONFLICT).message).to.equal(
      'create reversetunnels.reverse-tunnel.io in default a: 409 Conflict: Operation cannot be fulfilled on ' +
        'reversetunnels.reverse-tunnel.io "a": the object has been modified; please apply your changes to the latest ' +
        'version and try again',
    );
    expect(errorOf(answers.INVALID).message).to.contain(
      '422 Invalid: spec.tunnelName: Invalid value: "": spec.tunnelName in body',
    );
    expect(errorOf(answers.CRD_MISSING).message).to.contain('404 resource not found (is the CRD installed?)');
    expect(errorOf(page(404, HTML)).message)
      .to.contain('<title>Sign in</title>')
      .and.not.contain('\n');
  });

  it('never says more than 300 characters, and never a line end or a control character', () => {
    const causes = [...Array(20).keys()].map((i) => ({
      field: `spec.f${i}`,
      message: `bad\n\u0000${'x'.repeat(5_000)}`,
    }));
    const huge = {
      kind: 'Status',
      code: 422,
      reason: 'Invalid',
      message: 'y'.repeat(90_000),
      details: { causes },
    };
    for (const error of [
      errorOf(page(422, JSON.stringify(huge))),
      errorOf(page(500, JSON.stringify({ ...huge, code: 500 }))),
      errorOf(page(400, `\u2028${'🙂'.repeat(400)}`)),
      errorFromTransport('list\nrows', new Error('a\r\nb'.repeat(500))),
    ]) {
      expect(error.message.length).to.be.at.most(300);
      expect(error.message).to.match(/^[^\p{Cc}\u2028\u2029]+$/u);
      expect(error.message.isWellFormed()).to.equal(true);
    }
  });

  it('takes no answer for unavailable, keeps the cause, and says which address failed', () => {
    const refused = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:443'), { code: 'ECONNREFUSED' });
    const both = Object.assign(new AggregateError([refused, refused], ''), { code: 'ECONNREFUSED' });
    expect(errorFromTransport('list rows', refused)).to.include({ kind: 'unavailable', cause: refused });
    expect(errorFromTransport('list rows', both).message).to.equal(
      'list rows: connect ECONNREFUSED 10.0.0.1:443',
    );
  });

  it('says that TLS failed, and how, for whatever OpenSSL calls it', () => {
    const untrusted = Object.assign(new Error('unable to verify the first certificate'), {
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    });
    expect(isTrustFailure(untrusted)).to.equal(true);
    expect(errorFromTransport('list rows', untrusted).message).to.equal(
      'list rows: TLS: unable to verify the first certificate (UNABLE_TO_VERIFY_LEAF_SIGNATURE)',
    );
    for (const code of [
      'CERT_HAS_EXPIRED',
      'ERR_TLS_CERT_ALTNAME_INVALID',
      'SELF_SIGNED_CERT_IN_CHAIN',
      'INVALID_CA',
    ]) {
      expect(isTrustFailure(Object.assign(new Error('x'), { code })), code).to.equal(true);
    }
    for (const error of [
      new Error('x'),
      undefined,
      'CERT_HAS_EXPIRED',
      Object.assign(new Error('x'), { code: 'EPIPE' }),
    ]) {
      expect(isTrustFailure(error), String(error)).to.equal(false);
    }
  });

  it('names what OpenSSL found wrong, and not where in its source it found it', () => {
    let thrown: unknown;
    try {
      createSecureContext({ cert: 'no certificate', key: 'no key' });
    } catch (error) {
      thrown = error;
    }
    // As of a certificate and a key that were read while they were rotated.
    expect(isTrustFailure(thrown)).to.equal(true);
    expect(errorFromTransport('list rows', thrown).message).to.equal(
      'list rows: TLS: no start line (ERR_OSSL_PEM_NO_START_LINE)',
    );
  });

  it('never repeats credentials, whoever sent them back, nor what turns the direction of text', () => {
    const jwt = 'eyJhbGciOiJSUzI1NiIsImtpZCI6IkFCIn0.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl';
    for (const echo of [
      `<pre>GET / HTTP/1.1\r\nAuthorization: Bearer s3cret-token\r\n</pre>`,
      `{"authorization":"Bearer s3cret-token"}`,
      `authorization=Basic czNjcmV0LXRva2Vu`,
      `token ${jwt} is not known`,
      `${'x'.repeat(40)} Bearer s3cret-token-cut-in-the-middle-by-the-limit`,
    ]) {
      const { message } = errorOf(page(404, echo));
      expect(message, echo).to.contain('[credentials]');
      expect(message, echo).not.to.match(/s3cret|czNj|eyJ|c2ln/);
    }
    expect(errorOf(page(404, 'a\u202Eb\u0007c')).message).to.match(/a b c$/);
  });

  it('explains what is thrown that is no error', () => {
    expect(errorMessage('not_found')).to.equal('not_found');
    expect(errorMessage(undefined)).to.equal('undefined');
  });
});
