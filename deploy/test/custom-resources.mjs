// Holds the custom resources in a file against their schemas.
import fs from "node:fs";
import { parseAllDocuments } from "yaml";

const packages = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
};

let failed = false;
for (const document of parseAllDocuments(fs.readFileSync(process.argv[2], "utf8"))) {
  const object = document.toJS();
  if (!packages[object.apiVersion]) continue;
  try {
    const model = await import(`${packages[object.apiVersion]}/${object.apiVersion}/${object.kind}`);
    new model[object.kind](object).validate();
  } catch (error) {
    failed = true;
    console.error(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
