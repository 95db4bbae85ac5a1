"""Real servers and our own processes on loopback, each with its own log file, stopped exactly as they were started.

    Servers     starts, watches and stops a set of child processes
    broker      MQTT with mutual TLS and one ACL per edge: mosquitto, else nats-server
    store       S3: `weed mini`
    ports       free ports, and whether one answers

Every failure a person can cause or mend is one `ServerError` with one line that says what to do.
"""
