"""The pages people look at: plant, line, review, fleet, rollouts, candidates, audit. Server-rendered, no build step.

`endpoints` answers requests, `queries` reads plain rows, `views` decides what is abnormal and what is said about it,
`words` holds the sentences, `i18n` the languages, `pages` the templates and the headers.
"""
