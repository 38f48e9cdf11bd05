import { expect } from 'chai';
import { ApiError } from '../../src/k8s/api-error.ts';

/** The error a call to the API server rejects with; fails when it does not, or with anything else. */
export async function expectApiError(call: Promise<unknown>): Promise<ApiError> {
  try {
    await call;
  } catch (error) {
    expect(error).to.be.instanceOf(ApiError);
    return error as ApiError;
  }
  throw new Error('the call was meant to fail');
}
