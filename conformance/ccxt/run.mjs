// The unmodified ccxt against the sandbox: what a client that knows nothing of
// the sandbox reads there must be right. Usage: node run.mjs SANDBOX_BINARY
import { spawn } from 'node:child_process';
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import ccxt from 'ccxt';

const accessId = 'sandbox-access-id';
const secret = 'sandbox-secret-key';
const listed = 'TJRabPrwbZy45sbavfcjinPJC18kjpRTv8';
const ripple = 'rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh';

const sandbox = spawn(process.argv[2], ['--listen', '127.0.0.1:0', '--legacy'], { stdio: ['ignore', 'pipe', 'inherit'] });
process.on('exit', () => sandbox.kill());
// A hung run must end red, whatever ccxt waits for.
setTimeout(() => { console.error('the run took longer than two minutes'); process.exit(1); }, 120_000).unref();
const base = await new Promise((resolve, reject) => {
  let address;
  createInterface({ input: sandbox.stdout }).on('line', line => {
    address ??= line.match(/^ {2}address +(http:.*)$/)?.[1];
    if (line === 'ready') resolve(address);
  });
  sandbox.on('exit', code => reject(new Error(`the sandbox ended with ${code} before it was ready`)));
});
sandbox.removeAllListeners('exit');

async function control(path, body) {
  const answer = await fetch(`${base}/_sandbox/${path}`, body && { method: 'POST', body: JSON.stringify(body) });
  const state = await answer.json();
  if (!answer.ok) throw new Error(`control ${path}: ${state.error}; ${state.fix}`);
  return state;
}

const api = { public: base, private: base };
const ws = base.replace('http', 'ws');
const clients = [];
function client(Class, more = {}) {
  const made = new Class({ apiKey: accessId, secret, urls: { api: { ...api, ws: { spot: `${ws}/v2/spot/`, swap: `${ws}/v2/futures/` } } }, ...more });
  clients.push(made);
  return made;
}
const exchange = client(ccxt.coinex);

let passed = 0, failed = 0;
async function check(name, run) {
  try {
    await run();
    passed++;
    console.log(`ok    ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL  ${name}\n      ${String(e.stack ?? e).split('\n').join('\n      ')}`);
  }
}

// ccxt reads websockets in callbacks of its own: what it cannot read there ends
// here, not at the check that waits for it.
process.on('uncaughtException', e => {
  console.log(`FAIL  ccxt broke outside of a check\n      ${e.stack}`);
  console.log(`${passed} passed, ${failed + 1} failed`);
  process.exit(1);
});

// raises is strict: a subclass is another error.
async function raises(promise, Class, words) {
  const e = await promise.then(() => assert.fail(`nothing was raised, want ${Class.name}`), e => e);
  assert.equal(e.constructor.name, Class.name, e.stack);
  assert.match(e.message, words);
}

const trc20 = (amount, remark) => exchange.withdraw('USDT', amount, listed, undefined, { network: 'TRC20', remark });
const spotUsdt = async () => (await exchange.fetchBalance()).USDT.free;

await check('ccxt is the version that this is about', () => {
  // ccxt.version lags behind in the published package; its package.json does not.
  const read = file => JSON.parse(readFileSync(new URL(file, import.meta.url)));
  assert.equal(read('node_modules/ccxt/package.json').version, read('package.json').dependencies.ccxt);
});

await control('clock', { auto: false });
await control('whitelist', { add: [
  { asset: 'USDT', chain: 'TRC20', address: listed },
  { asset: 'XRP', chain: 'XRP', address: ripple, memo: '123456' },
  { asset: 'USDT', method: 'inter_user', address: 'user@example.com' },
] });

await check('fetchTime', async () => {
  const before = Date.now();
  const time = await exchange.fetchTime();
  assert(time >= before - 1000 && time <= Date.now() + 1000, `time ${time}`);
});

await check('loadMarkets', async () => {
  const markets = await exchange.loadMarkets();
  assert.deepEqual(Object.keys(markets).sort(),
    ['BTC/USDT', 'BTC/USDT:USDT', 'ETH/USDT', 'ETH/USDT:USDT', 'SOL/USDT', 'TRX/USDT', 'XRP/USDT']);
  const { id, type, active, base, quote, precision, limits, taker } = markets['BTC/USDT'];
  assert.deepEqual({ id, type, active, base, quote, precision, min: limits.amount.min, taker },
    { id: 'BTCUSDT', type: 'spot', active: true, base: 'BTC', quote: 'USDT', precision: { amount: 1e-8, price: 0.01 }, min: 0.0001, taker: 0.002 });
  const swap = markets['ETH/USDT:USDT'];
  assert.deepEqual([swap.type, swap.linear, swap.settle, swap.limits.leverage], ['swap', true, 'USDT', { min: 1, max: 100 }]);
});

await check('fetchCurrencies', async () => {
  const { USDT, XRP } = await exchange.fetchCurrencies();
  assert.deepEqual(Object.keys(USDT.networks).sort(), ['BEP20', 'ERC20', 'SOL', 'TRC20']);
  assert.deepEqual([USDT.withdraw, USDT.deposit], [true, true]);
  const { id, fee, withdraw, precision, limits } = USDT.networks.TRC20;
  assert.deepEqual({ id, fee, withdraw, precision, min: limits.withdraw.min }, { id: 'TRC20', fee: 2.4, withdraw: true, precision: 1e-6, min: 5 });
  assert.equal(USDT.networks.BEP20.id, 'BSC');
  assert.equal(XRP.networks.XRP.info.is_memo_required_for_deposit, true);
});

await check('fetchDepositWithdrawFee', async () => {
  const fee = await exchange.fetchDepositWithdrawFee('USDT');
  assert.equal(fee.networks.ERC20.withdraw.fee, 4.5);
});

await check('fetchTicker (spot, swap)', async () => {
  await control('prices', { set: { BTCUSDT: '70000.5' } });
  assert.equal((await exchange.fetchTicker('BTC/USDT')).last, 70000.5);
  assert.equal((await exchange.fetchTicker('BTC/USDT:USDT')).markPrice, 70000.5);
  assert.equal(Object.keys(await exchange.fetchTickers()).length, 5);
});

await check('fetchBalance (spot)', async () => {
  const balance = await exchange.fetchBalance();
  assert.deepEqual(balance.USDT, { free: 1000000, used: 0, total: 1000000 });
  assert.equal(balance.BTC.free, 25);
});

await check('fetchBalance (margin, financial)', async () => {
  await control('balances', { financial: { BTC: '1.5' } });
  assert.equal((await exchange.fetchBalance({ type: 'financial' })).BTC.free, 1.5);
  await exchange.transfer('BTC', 0.5, 'spot', 'margin', { symbol: 'BTC/USDT' });
  assert.equal((await exchange.fetchBalance({ type: 'margin' })).BTC.free, 0.5);
});

await check('transfer, fetchBalance (swap), fetchTransfers', async () => {
  const there = await exchange.transfer('USDT', 50, 'spot', 'swap');
  assert.deepEqual([there.status, there.amount, there.fromAccount, there.toAccount], ['ok', 50, 'spot', 'swap']);
  assert.equal((await exchange.fetchBalance({ type: 'swap' })).USDT.free, 50);
  assert.equal(await spotUsdt(), 999950);
  await exchange.transfer('USDT', 20, 'swap', 'spot');
  assert.equal((await exchange.fetchBalance({ type: 'swap' })).USDT.free, 30);
  assert.equal(await spotUsdt(), 999970);
  const history = await exchange.fetchTransfers('USDT');
  assert.deepEqual(history.map(t => [t.amount, t.fromAccount, t.toAccount, t.status]), [[50, 'spot', 'swap', 'ok'], [20, 'swap', 'spot', 'ok']]);
  await raises(exchange.transfer('USDT', 31, 'swap', 'spot'), ccxt.InsufficientFunds, /balance not enough/);
});

await check('fetchPositions', async () => {
  assert.deepEqual(await exchange.fetchPositions(), []);
  await control('positions', { market: 'BTCUSDT', open_interest: '0.01', avg_entry_price: '70000', leverage: '10' });
  const [p, ...more] = await exchange.fetchPositions();
  assert.deepEqual([more.length, p.symbol, p.side, p.contracts, p.entryPrice, p.unrealizedPnl, p.collateral],
    [0, 'BTC/USDT:USDT', 'long', 0.01, 70000, 0.005, 70]);
});

let first;
await check('withdraw', async () => {
  const w = first = await trc20(25.5, 'wf-1');
  assert.deepEqual(
    [w.type, w.amount, w.currency, w.network, w.address, w.fee, w.comment, w.status, w.txid, w.info.amount, w.tag],
    ['withdrawal', 25.5, 'USDT', 'TRC20', listed, { cost: 2.4, currency: 'USDT' }, 'wf-1', 'pending', undefined, '27.9', undefined]);
  assert.equal(await spotUsdt(), 999942.1);
});

await check('withdraw with a memo rounds to the precision', async () => {
  const w = await exchange.withdraw('XRP', 12.3456789, ripple, '123456', { network: 'XRP' });
  assert.deepEqual([w.amount, w.tag, w.fee.cost], [12.345679, '123456', 0.25]);
});

await check('withdraw to a user of the exchange', async () => {
  const w = await exchange.withdraw('USDT', 5, 'user@example.com', undefined, { withdraw_method: 'inter_user' });
  assert.deepEqual([w.amount, w.fee.cost, w.status, w.info.chain], [5, 0, 'ok', '']);
});

await check('fetchWithdrawals with filters and paging', async () => {
  const all = await exchange.fetchWithdrawals();
  assert.deepEqual(all.map(w => w.currency), ['USDT', 'XRP', 'USDT']); // ccxt sorts by time
  assert.equal(all[0].id, first.id);
  assert.deepEqual((await exchange.fetchWithdrawals('XRP')).map(w => w.amount), [12.345679]);
  assert.deepEqual((await exchange.fetchWithdrawals('USDT', undefined, 1)).map(w => w.amount), [5]); // the newest
  assert.deepEqual((await exchange.fetchWithdrawals('USDT', undefined, 1, { page: 2 })).map(w => w.amount), [25.5]);
  assert.deepEqual((await exchange.fetchWithdrawals(undefined, undefined, undefined, { withdraw_id: Number(first.id) })).map(w => w.comment), ['wf-1']);
  assert.deepEqual((await exchange.fetchWithdrawals(undefined, undefined, undefined, { status: 'finished' })).map(w => w.address), ['user@example.com']);
  assert.deepEqual(await exchange.fetchWithdrawals('USDT', undefined, undefined, { page: 9 }), []);
});

await check('a withdrawal lives to its end', async () => {
  const look = async () => (await exchange.fetchWithdrawals(undefined, undefined, undefined, { withdraw_id: Number(first.id) }))[0];
  const seen = [];
  for (let i = 0; i < 4; i++) {
    await control('clock', { step: true });
    const w = await look();
    seen.push(`${w.status} ${w.txid ? 'tx' : '-'}`);
  }
  assert.deepEqual(seen, ['audited -', 'pending -', 'pending tx', 'ok tx']); // ccxt does not map "audited"
});

await check('cancel', async () => {
  const before = await spotUsdt();
  const w = await trc20(10, 'to cancel');
  await exchange.v2PrivatePostAssetsCancelWithdraw({ withdraw_id: Number(w.id) });
  const [gone] = await exchange.fetchWithdrawals(undefined, undefined, undefined, { withdraw_id: Number(w.id) });
  assert.equal(gone.info.status, 'cancelled');
  assert.equal(await spotUsdt(), before);
});

await check('fetchDepositAddress, createDepositAddress', async () => {
  const old = await exchange.fetchDepositAddress('USDT', { network: 'TRC20' });
  assert(old.address.length > 10);
  assert.equal((await exchange.fetchDepositAddress('USDT', { network: 'TRC20' })).address, old.address);
  const fresh = await exchange.createDepositAddress('USDT', { network: 'TRC20' });
  assert.notEqual(fresh.address, old.address);
  assert.equal((await exchange.fetchDepositAddress('USDT', { network: 'TRC20' })).address, fresh.address);
  assert.equal((await exchange.fetchDepositAddress('XRP', { network: 'XRP' })).tag, '100001');
});

await check('fetchDeposits', async () => {
  const before = await spotUsdt();
  await control('deposits', { asset: 'USDT', chain: 'TRC20', amount: '30' });
  const [d, ...more] = await exchange.fetchDeposits('USDT');
  assert.deepEqual([more.length, d.type, d.amount, d.status, d.network, d.address],
    [0, 'deposit', 30, 'ok', 'TRC20', (await exchange.fetchDepositAddress('USDT', { network: 'TRC20' })).address]);
  assert.equal(await spotUsdt(), before + 30);
});

await check('ping, maintenance, asset info', async () => {
  assert.equal((await exchange.v2PublicGetPing()).data.result, 'pong');
  assert.deepEqual((await exchange.v2PublicGetMaintainInfo()).data, []);
  assert.equal((await exchange.v2PublicGetAssetsInfo({ ccy: 'ETH' })).data[0].chain_info[0].chain_name, 'Ethereum (ERC20)');
});

// Until the sandbox shows the subscription: a change before it would not be pushed.
async function subscribed(market) {
  while (!(await control('state')).sockets.some(s => s.market === market && s.balances)) await new Promise(r => setTimeout(r, 10));
}

await check('watchBalance (spot): debit and refund', async () => {
  const watcher = client(ccxt.pro.coinex);
  await watcher.loadHttpProxyAgent(); // plain ws:// needs this
  let next = watcher.watchBalance();
  await subscribed('spot');
  const before = await spotUsdt();
  const w = await trc20(100, 'watched');
  assert.equal((await next).USDT.free, before - 102.4);
  next = watcher.watchBalance();
  await exchange.v2PrivatePostAssetsCancelWithdraw({ withdraw_id: Number(w.id) });
  assert.equal((await next).USDT.free, before);
});

await check('watchBalance (swap)', async () => {
  const watcher = client(ccxt.pro.coinex);
  await watcher.loadHttpProxyAgent();
  const next = watcher.watchBalance({ type: 'swap' });
  await subscribed('futures');
  const { USDT: { free } } = await exchange.fetchBalance({ type: 'swap' });
  await exchange.transfer('USDT', 7, 'spot', 'swap');
  assert.equal((await next).USDT.free, free + 7);
});

await check('wrong secret: AuthenticationError', () =>
  raises(client(ccxt.coinex, { secret: 'wrong' }).fetchBalance(), ccxt.AuthenticationError, /signature incorrect/));

await check('unknown key: AuthenticationError', () =>
  raises(client(ccxt.coinex, { apiKey: 'nobody' }).fetchBalance(), ccxt.AuthenticationError, /access_id not exist/));

await check('key bound to another IP: PermissionDenied', async () => {
  await control('keys', { access_id: 'bound', secret_key: 's', ips: ['192.0.2.1'] });
  await raises(client(ccxt.coinex, { apiKey: 'bound', secret: 's' }).fetchBalance(), ccxt.PermissionDenied, /ip not allowed/);
});

await check('stale timestamp: ExchangeError', async () => {
  await control('clock', { offset: '20s' });
  await raises(exchange.fetchBalance(), ccxt.ExchangeError, /signature expired/);
  await control('clock', { offset: '0s' });
});

await check('unlisted address: ExchangeError', () =>
  raises(exchange.withdraw('USDT', 10, 'TNotListedNotListedNotListedNotLis', undefined, { network: 'TRC20' }), ccxt.ExchangeError, /Invalid Withdrawal Address/));

await check('listed address on the wrong chain: ExchangeError', () =>
  raises(exchange.withdraw('USDT', 10, listed, undefined, { network: 'ERC20' }), ccxt.ExchangeError, /Invalid Withdrawal Address/));

await check('no funds: InsufficientFunds', () => raises(trc20(5000000, 'too much'), ccxt.InsufficientFunds, /balance not enough/));

await check('invalid parameter: ExchangeError', () =>
  raises(exchange.v2PrivatePostAssetsWithdraw({ ccy: 'USDT', chain: 'TRC20', to_address: listed, amount: 10 }), ccxt.ExchangeError, /Invalid Parameter/));

for (const [fault, Class, words] of [
  [{ fault: 'error', code: 3008 }, ccxt.RequestTimeout, /busy/],
  [{ fault: 'error', code: 4001 }, ccxt.ExchangeNotAvailable, /unavailable/],
  [{ fault: 'error', code: 4002 }, ccxt.RequestTimeout, /timed out/],
  [{ fault: 'error', code: 4011 }, ccxt.PermissionDenied, /forbidden/],
  [{ fault: 'rate_limit' }, ccxt.RateLimitExceeded, /too frequently/],
  [{ fault: 'accept_then_502' }, ccxt.ExchangeNotAvailable, /502/],
]) {
  await check(`${Object.values(fault).join(' ')}: ${Class.name}`, async () => {
    await control('faults', fault);
    await raises(trc20(10, 'spoilt'), Class, words);
    assert.deepEqual((await control('state')).faults, []);
  });
}

await check('fee_asset variant, upper-case method', async () => {
  await control('faults', { fault: 'fee_asset_variant' });
  await control('faults', { fault: 'upper_case_method' });
  const w = await trc20(10, 'variant');
  assert.deepEqual([w.fee, w.info.withdraw_method, w.info.fee_ccy], [{ cost: 2.4, currency: 'USDT' }, 'ON_CHAIN', undefined]);
});

await Promise.all(clients.map(c => c.close()));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
