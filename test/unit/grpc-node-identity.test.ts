import { expect } from 'chai';
import { envoyMetadata } from '../../src/grpc/node-identity.ts';

describe('envoyMetadata', () => {
  it('prefers the build version to the user agent version', () => {
    const built = { user_agent_build_version: { version: { major_number: 1, minor_number: 38 } } };
    expect(envoyMetadata({ ...built, user_agent_version: 'custom' }).version).to.equal('1.38.0');
    expect(envoyMetadata({ user_agent_version: 'custom' }).version).to.equal('custom');
    expect(envoyMetadata({}).version).to.equal(undefined);
  });

  it('contains the reported parts of the locality', () => {
    expect(envoyMetadata({ locality: { region: 'eu', sub_zone: 'rack-1' } }).locality).to.deep.equal({
      region: 'eu',
      subZone: 'rack-1',
    });
    expect(envoyMetadata({ locality: { region: '', zone: '' } }).locality).to.equal(undefined);
  });

  it('truncates and sanitizes text that the API server would reject', () => {
    const { version, locality } = envoyMetadata({
      user_agent_version: `\u202e${'x'.repeat(300)}`,
      locality: { zone: 'a\u0000b' },
    });
    expect(version)
      .to.match(/^\?x+…$/)
      .and.have.length(256);
    expect(locality).to.deep.equal({ zone: 'a?b' });
  });
});
