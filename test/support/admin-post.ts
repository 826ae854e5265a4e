/** POST to a page below /admin of a gateway, with its token. */
export async function adminPost(
  adminUrl: string,
  token: string,
  page: string,
  body?: object,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${adminUrl}/admin/${page}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}
