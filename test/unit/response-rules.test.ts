import { expect } from 'chai';
import { responseViolation } from '../support/response-rules.ts';

const error_detail = { code: 3, message: 'node: required' };

describe('responseViolation', () => {
  for (const { what, response, violation } of [
    { what: 'an ACK', response: { node_id: 'a', request_nonce: '1' }, violation: undefined },
    { what: 'an omitted nonce', response: {}, violation: undefined },
    { what: 'a NACK', response: { request_nonce: '0', error_detail }, violation: undefined },
    { what: 'the shortest interval', response: { report_interval: { seconds: 0, nanos: 25_000_000 } } },
    { what: 'the longest interval', response: { report_interval: { seconds: '3600', nanos: 0 } } },
    { what: 'a negative nonce', response: { request_nonce: '-1' }, violation: /^request_nonce: -1 / },
    {
      what: 'a negative nonce in a NACK',
      response: { request_nonce: '-9223372036854775808', error_detail },
      violation: /^request_nonce/,
    },
    {
      what: 'an interval that is too short',
      response: { report_interval: { seconds: 0, nanos: 24_999_999 } },
      violation: /^report_interval/,
    },
    {
      what: 'an interval that is too long',
      response: { report_interval: { seconds: 3600, nanos: 1 } },
      violation: /^report_interval/,
    },
    {
      what: 'an error that is OK',
      response: { error_detail: { code: 0, message: '' } },
      violation: /^error_detail/,
    },
  ]) {
    it(`${violation === undefined ? 'accepts' : 'rejects'} ${what}`, () => {
      if (violation === undefined) expect(responseViolation(response)).to.equal(undefined);
      else expect(responseViolation(response)).to.match(violation);
    });
  }
});
