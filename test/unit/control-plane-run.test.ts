import { expect } from 'chai';
import { ControlPlaneError } from '../../control-plane/errors.ts';
import { run } from '../../control-plane/run.ts';

describe('A program of the control plane', () => {
  it('that does not end in time is killed and reported in one line, with the end of what it has printed', async () => {
    const script = 'echo first >&2; echo second >&2; echo last >&2; exec sleep 60';
    const options = { cwd: '/', env: process.env, timeoutMs: 2000 };
    const error: unknown = await run('/bin/sh', ['-c', script], options).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(ControlPlaneError);
    expect(error).to.have.property(
      'message',
      `/bin/sh -c ${script} did not exit within 2000 ms: second | last`,
    );
  });
});
