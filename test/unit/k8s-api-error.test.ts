import { createSecureContext } from 'node:tls';
import { expect } from 'chai';
import { errorMessage } from '../../src/error-message.ts';
import {
  ApiError,
  errorFromResponse,
  errorFromStatus,
  errorFromTransport,
  isTrustFailure,
  type KubernetesStatus,
} from '../../src/k8s/api-error.ts';
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

describe('API errors', () => {
  const recorded: readonly (readonly [string, RecordedResponse, ApiErrorKind])[] = [
    ['a name in use', answers.ALREADY_EXISTS, 'already_exists'],
    ['a name in use by a terminating object', answers.EXISTS_TERMINATING, 'already_exists'],
    ['a stale resourceVersion', answers.CONFLICT, 'conflict'],
    ['another uid', answers.UID_CONFLICT, 'conflict'],
    ['a missing object', answers.NOT_FOUND, 'not_found'],
    ['a missing namespace', answers.NAMESPACE_MISSING, 'namespace_not_found'],
    ['a terminating namespace', answers.NAMESPACE_TERMINATING, 'terminating'],
    ['a terminating CRD', answers.CRD_TERMINATING, 'no_kind_match'],
    ['a missing CRD', answers.CRD_MISSING, 'no_kind_match'],
    ['a missing permission', answers.FORBIDDEN, 'rejected'],
    ['an invalid object', answers.INVALID, 'rejected'],
    ['a bad continue token', answers.BAD_CONTINUE, 'rejected'],
    ['an invalid token', answers.UNAUTHORIZED, 'unauthorized'],
    ['a continue token that expired', answers.CONTINUE_EXPIRED, 'expired'],
    ['a version that the store has not reached', answers.VERSION_TOO_LARGE, 'resource_version_too_large'],
    ['too many requests, in plain text', answers.TOO_MANY_REQUESTS, 'throttled'],
    ['a watch cache that is filling', answers.INITIALIZING, 'throttled'],
    ['a starting API server', answers.STARTING, 'throttled'],
    ['an internal error', answers.BAD_VERSION, 'unavailable'],
  ];
  for (const [situation, answer, kind] of recorded) {
    it(`classifies ${situation} as ${kind}`, () => {
      expect(errorOf(answer)).to.include({ kind, status: answer.status });
    });
  }

  // TestReflectorFullListIfTooLarge: as reported by API servers since 1.18.6, since 1.17 and before
  it('recognizes a resource version that is too large in each form that API servers use', () => {
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

  it('limits Retry-After to one minute', () => {
    expect(errorOf(answers.TOO_MANY_REQUESTS).retryAfterMs).to.equal(1_000);
    expect(errorOf(answers.STARTING).retryAfterMs).to.equal(5_000);
    expect(errorOf(page(429, '', { 'retry-after': '86400' })).retryAfterMs).to.equal(60_000);
    for (const nonsense of ['Wed, 21 Oct 2026 07:28:00 GMT', '-1', '1.5', '', '99999999999']) {
      expect(errorOf(page(429, '', { 'retry-after': nonsense })).retryAfterMs, nonsense).to.equal(undefined);
    }
  });

  const malformed: Readonly<Record<string, object>> = {
    'a delay that is not a number': { details: { retryAfterSeconds: 'soon' } },
    'a delay that is an object': { details: { retryAfterSeconds: {} } },
    'a message that is a number': { message: 5 },
    'a message that cannot be converted to text': { message: { toString: null } },
    'a reason that is an object': { reason: { toString: null } },
    'a code that is text': { code: '429' },
    'causes that are not a list': { details: { causes: 5 } },
    'causes that are an object': { details: { causes: {} } },
    'a cause that is null': { details: { causes: [null, 5, 'text'] } },
    'a cause whose fields are numbers': { details: { causes: [{ reason: 1, message: 2, field: 3 }] } },
    'details that are null': { details: null },
    'details that are text': { details: 'text' },
  };
  for (const [what, fields] of Object.entries(malformed)) {
    it(`ignores ${what} in a Status`, () => {
      for (const code of [403, 404, 409, 422, 429, 500, 503, 504]) {
        const received = { kind: 'Status', code, ...fields };
        const { kind } = errorOf(page(code, '{"kind":"Status"}'));
        expect(errorOf(page(code, JSON.stringify(received)))).to.include({
          kind,
          status: code,
          reason: undefined,
          retryAfterMs: undefined,
        });
      }
    });
  }

  it('has the status 0 for an ERROR event whose code is not a number', () => {
    const received = { kind: 'Status', code: '410' } as unknown as KubernetesStatus;
    expect(errorFromStatus('watch', received)).to.include({ status: 0, kind: 'unavailable' });
  });

  it('distinguishes responses of a proxy from those of the API server', () => {
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

  it('parses a Status with any content type, such as a 504 labelled text/plain', () => {
    const timeout =
      '{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout","reason":"Timeout","details":{},"code":504,"kind":"Status"}';
    expect(errorOf(page(504, timeout, { 'content-type': 'text/plain' }))).to.include({
      kind: 'unavailable',
      reason: 'Timeout',
    });
  });

  it('treats a 500 about an object that etcd does not accept as a rejection, and any other as unavailable', () => {
    for (const [message, kind] of [
      ['etcdserver: request is too large', 'rejected'],
      ['rpc error: code = InvalidArgument desc = etcdserver: request is too large', 'rejected'],
      ['etcdserver: no leader', 'unavailable'],
      ['etcdserver: request timed out', 'unavailable'],
    ] as const) {
      const status = { kind: 'Status', status: 'Failure', code: 500, message };
      expect(errorOf(page(500, JSON.stringify(status))), message).to.include({ kind });
    }
  });

  it('describes action, object and cause in one line', () => {
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

  it('limits messages to 600 characters without line breaks and control characters', () => {
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
      expect(error.message.length).to.be.at.most(600);
      expect(error.message).to.match(/^[^\p{Cc}\u2028\u2029]+$/u);
      expect(error.message.isWellFormed()).to.equal(true);
    }
  });

  it('keeps the end of a long rejection, which contains the message of a policy or a rule', () => {
    const denied = 'tunnels of tenant acme need the label team; ask the platform team for one';
    const policy = 'p'.repeat(253);
    const message = `ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: ${denied}`;
    const response = (causes: object[]): RecordedResponse =>
      page(
        422,
        JSON.stringify({ kind: 'Status', code: 422, reason: 'Invalid', message, details: { causes } }),
      );
    for (const causes of [[], [{ message }], [{ message: '' }], [{ message }, { field: 'spec', message }]]) {
      const error = errorOf(response(causes));
      expect(error.message)
        .to.match(/: 422 Invalid: (spec: )?ValidatingAdmissionPolicy 'p+…/)
        .and.to.match(new RegExp(`${denied}$`));
    }
    const webhook = { kind: 'Status', code: 403, message: `admission webhook denied the request: ${denied}` };
    expect(errorOf(page(403, JSON.stringify(webhook))).message).to.match(
      new RegExp(`: 403: admission webhook denied the request: ${denied}$`),
    );
  });

  describe('keeps the useful end of what rejects a write', () => {
    const long = 'x'.repeat(300);
    const fields = ['spec.tenantID', 'spec.clusterID', 'spec.nodeID'];
    const rejections: readonly (readonly [string, number, string, object[], readonly string[]])[] = [
      [
        'a webhook',
        400,
        `admission webhook "w.${long}" denied the request: ask the team`,
        [],
        ['ask the team'],
      ],
      [
        'a webhook without an explanation',
        403,
        'admission webhook "w" denied the request without explanation',
        [],
        ['without explanation'],
      ],
      [
        'a quota',
        403,
        `reversetunnels.reverse-tunnel.io "${long}" is forbidden: exceeded quota: q, requested: count/a=1, used: count/a=5, limited: count/a=5`,
        [],
        ['limited: count/a=5'],
      ],
      [
        'a policy of several lines',
        422,
        `ValidatingAdmissionPolicy 'p' denied request: first\n\tsecond`,
        [{ message: `ValidatingAdmissionPolicy 'p' denied request: first\n\tsecond` }],
        ['denied request: first second'],
      ],
      [
        'one cause',
        422,
        long,
        [{ field: 'spec', message: `Invalid value: "${long}": must be short` }],
        ['must be short'],
      ],
      [
        'three long causes',
        422,
        long,
        fields.map((field) => ({ field, message: `Invalid value: "${long}": rule of ${field}` })),
        fields.map((field) => `rule of ${field}`),
      ],
      [
        'ten causes',
        422,
        long,
        Array.from({ length: 10 }, (_, i) => ({
          field: `spec.f${i}`,
          message: `Invalid value: "${long}": rule ${i}`,
        })),
        ['rule 0', 'rule 1', 'rule 2', '(and 7 more)'],
      ],
      [
        'causes without any text',
        422,
        'the message',
        [{}, { field: '', message: '' }],
        [': 422 Invalid: the message'],
      ],
      ['neither causes nor a message', 422, '', [], [': 422 Invalid: no message']],
      ['a cause without a field', 422, long, [{ message: 'only this' }], [': 422 Invalid: only this']],
      ['a cause without a message', 422, long, [{ field: 'spec.a' }], [': 422 Invalid: spec.a']],
    ];
    for (const [title, code, message, causes, expected] of rejections) {
      it(`of ${title}`, () => {
        const reason = code === 422 ? 'Invalid' : 'Forbidden';
        const status = { kind: 'Status', code, reason, message, details: { causes } };
        const text = errorOf(page(code, JSON.stringify(status))).message;
        for (const part of expected) expect(text).to.contain(part);
        expect(text).not.to.match(/\n|: :|: $/);
      });
    }
  });

  it('classifies a missing response as unavailable, keeps the cause and names the failed address', () => {
    const refused = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:443'), { code: 'ECONNREFUSED' });
    const aggregate = Object.assign(new AggregateError([refused, refused], ''), { code: 'ECONNREFUSED' });
    expect(errorFromTransport('list pods', refused)).to.include({ kind: 'unavailable', cause: refused });
    expect(errorFromTransport('list pods', aggregate).message).to.equal(
      'list pods: connect ECONNREFUSED 10.0.0.1:443',
    );
  });

  it('reports a TLS failure and its cause for every OpenSSL code', () => {
    const untrusted = Object.assign(new Error('unable to verify the first certificate'), {
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    });
    expect(isTrustFailure(untrusted)).to.equal(true);
    expect(errorFromTransport('list pods', untrusted).message).to.equal(
      'list pods: TLS: unable to verify the first certificate (UNABLE_TO_VERIFY_LEAF_SIGNATURE)',
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

  it('reports the reason of OpenSSL without the position in its source', () => {
    let thrown: unknown;
    try {
      createSecureContext({ cert: 'no certificate', key: 'no key' });
    } catch (error) {
      thrown = error;
    }
    // The failure of a certificate and a key that were read during a rotation.
    expect(isTrustFailure(thrown)).to.equal(true);
    expect(errorFromTransport('list pods', thrown).message).to.equal(
      'list pods: TLS: no start line (ERR_OSSL_PEM_NO_START_LINE)',
    );
  });

  it('redacts credentials in responses and removes bidirectional control characters', () => {
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

  it('describes thrown values that are not errors', () => {
    expect(errorMessage('not_found')).to.equal('not_found');
    expect(errorMessage(undefined)).to.equal('undefined');
  });
});
