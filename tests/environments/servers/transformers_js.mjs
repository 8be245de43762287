// Asks models by transformers.js: LIBRARY FOLDER ASKED-AS-JSON, a list of [name, task, options, inputs]; prints answers in its order.
const { env, pipeline } = await import(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = process.argv[3];
const said = [];
for (const [name, task, options, inputs] of JSON.parse(process.argv[4])) {
    const model = await pipeline(task, name, options);
    const answers = [];
    for (const each of inputs) {
        const answer = await (Array.isArray(each) ? model(...each) : model(each));
        answers.push(answer.tolist ? answer.tolist() : answer);
    }
    said.push(answers);
}
console.log(JSON.stringify(said));
