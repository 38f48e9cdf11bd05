import { expect } from 'chai';

import { envoyMetadata } from '../../src/grpc/node-metadata.ts';

describe('what a Node tells about its Envoy', () => {
  it('is the version that it was built as, else the one that it gives', () => {
    const built = { user_agent_build_version: { version: { major_number: 1, minor_number: 38 } } };
    expect(envoyMetadata({ ...built, user_agent_version: 'custom' }).version).to.equal('1.38.0');
    expect(envoyMetadata({ user_agent_version: 'custom' }).version).to.equal('custom');
    expect(envoyMetadata({}).version).to.equal(undefined);
  });

  it('is where it runs, as far as it says', () => {
    expect(envoyMetadata({ locality: { region: 'eu', sub_zone: 'rack-1' } }).locality).to.deep.equal({
      region: 'eu',
      subZone: 'rack-1',
    });
    expect(envoyMetadata({ locality: { region: '', zone: '' } }).locality).to.equal(undefined);
  });

  it('is cut and cleaned where the API server would refuse it', () => {
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
