import { expect } from 'chai';
import { pino } from 'pino';
import { Authorizer } from '../../src/controller/authorizer.ts';
import { PolicyCache } from '../../src/controller/policy-cache.ts';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { PolicyObject } from '../../src/core/policy-object.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { RESPONDER } from '../support/sample-tunnels.ts';

/** A policy that allows nothing. */
const POLICY: PolicyObject = {
  metadata: { name: 'nothing', uid: 'u', resourceVersion: '1', generation: 1 },
  spec: { rules: [] },
};

/** Returns the events of the first list of policies, in order. `before` runs before the list. */
function firstList(before: (authorizer: Authorizer) => void): string[] {
  const events: string[] = [];
  const clock = new FakeClock();
  const policies = new PolicyCache({ clock, metrics: createMetrics(), log: pino({ level: 'silent' }) });
  const authorizer = new Authorizer(clock);
  policies.addEventHandler(authorizer);
  authorizer.addEventHandler({
    onGrantChanged: () => events.push('grant changed'),
    onPoliciesChanged() {
      const inForce = authorizer.peerRejection(ANONYMOUS) !== undefined;
      events.push(inForce ? 'streams checked' : 'streams checked too early');
    },
    onReviewed: () => events.push('reviewed'),
  });
  before(authorizer);
  policies.replaceBegin();
  policies.replaceItem(POLICY);
  policies.replaceEnd();
  clock.advance(0);
  policies.stop();
  return events;
}

describe('the first list of policies', () => {
  it('ends denied streams before writes are enabled', () => {
    expect(firstList(() => {})).to.deep.equal(['streams checked', 'reviewed']);
  });

  it('ends denied streams before the tunnels of reporters are evaluated', () => {
    const events = firstList((authorizer) => authorizer.onStreamOpened(RESPONDER, ANONYMOUS));
    expect(events).to.deep.equal(['streams checked', 'grant changed', 'reviewed']);
  });
});
