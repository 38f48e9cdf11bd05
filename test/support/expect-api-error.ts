import { expect } from 'chai';
import { ApiError } from '../../src/k8s/api-error.ts';

/** Returns the ApiError that a call rejects with; fails when it resolves or rejects with another error. */
export async function expectApiError(call: Promise<unknown>): Promise<ApiError> {
  try {
    await call;
  } catch (error) {
    expect(error).to.be.instanceOf(ApiError);
    return error as ApiError;
  }
  throw new Error('expected the call to fail');
}
