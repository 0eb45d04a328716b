// What a user of the generated types writes: a session is created, changed, and refused.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [, , baseUrl, name] = process.argv;
const client = createClient<paths>({ baseUrl });

const schedule: components["schemas"]["Schedule"] = { kind: "cosine", total_steps: 100 };
const made = await client.POST("/v1/sessions", { body: { name, base_lr: 0.1, schedule } });
const law = made.data?.spec.schedule;

const order = await client.POST("/v1/sessions/{name}/actions", {
  params: { path: { name } },
  body: { kind: "scale", factor: 0.5 },
});

const window = await client.POST("/v1/sessions/{name}/sync", {
  params: { path: { name } },
  body: { want: { start: 0, count: 2 } },
});
const sealed = window.data as components["schemas"]["SealedWindow"];

const refused = await client.POST("/v1/sessions", { body: { name: "my run", base_lr: 0.1 } });
const mistake = refused.error?.errors?.[0];

// A kind that there is not does not compile.
// @ts-expect-error
const misspelt: components["schemas"]["Schedule"] = { kind: "cosin", total_steps: 100 };

console.log(
  JSON.stringify({
    kind: law?.kind,
    steps: law?.kind === "cosine" ? law.total_steps : null,
    effective_step: order.data !== undefined && "revision" in order.data ? order.data.effective_step : null,
    lr: sealed.series["lr"],
    status: refused.response.status,
    code: refused.error?.code,
    pointer: mistake?.pointer,
  }),
);
