// Asks models by transformers.js: LIBRARY FOLDER ASKED-AS-JSON, a list of [name, task, dtype, inputs].
const { env, pipeline } = await import(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = process.argv[3];
const said = {};
for (const [name, task, dtype, inputs] of JSON.parse(process.argv[4])) {
    const model = await pipeline(task, name, { dtype });
    said[name] = [];
    for (const each of inputs) {
        const answer = await (Array.isArray(each) ? model(...each) : model(each));
        said[name].push(answer.tolist ? answer.tolist() : answer);
    }
}
console.log(JSON.stringify(said));
